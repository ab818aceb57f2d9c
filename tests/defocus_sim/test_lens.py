import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from defocus_sim import Lens
from defocus_sim.errors import LensError
from defocus_sim.lens import PRESETS, coc_diameter_m, coc_diameter_px, depth_of_field_m, sigma_px

DEPTHS_M = [0.7, 1.0, 2.0, 3.0, 5.0, 10.0]
# Recomputed by hand from eq. 8 with a thin lens, 36 mm across 561 px (method notes, section 1).
PAPER_COC_PX = {
    1.0: [22.5, 0.0, 26.3, 35.0, 42.0, 47.3],
    2.0: [47.0, 25.3, 0.0, 8.4, 15.2, 20.3],
    3.0: [54.8, 33.4, 8.3, 0.0, 6.7, 11.7],
}


@pytest.mark.parametrize("focus_m", PAPER_COC_PX)
def test_paper_preset_gives_the_published_geometry(focus_m):
    coc = coc_diameter_px(DEPTHS_M, Lens.preset("paper", focus_distance_m=focus_m), width_px=561)
    np.testing.assert_allclose(np.abs(coc), PAPER_COC_PX[focus_m], atol=0.05)


def test_coc_is_negative_nearer_than_focus_and_zero_at_it():
    coc = coc_diameter_px([1.0, 2.0, 3.0], Lens.preset("paper"), width_px=561)
    assert coc[0] < 0 == coc[1] < coc[2]


def test_metres_and_pixels_agree_through_the_pitch():
    lens = Lens(focus_distance_m=1.5, aperture_mm=10, focal_length_mm=50, pixel_pitch_um=4.0)
    np.testing.assert_allclose(coc_diameter_m(DEPTHS_M, lens) / 4e-6, coc_diameter_px(DEPTHS_M, lens))


def test_literal_focal_length_is_the_far_focus_approximation():
    thin, literal = (Lens.preset("paper", sensor_distance=kind) for kind in ("thin-lens", "infinity"))
    ratio = coc_diameter_m(5.0, literal) / coc_diameter_m(5.0, thin)
    assert ratio == pytest.approx(1 - 0.07 / 2, rel=1e-12)


def test_a_calibrated_focal_length_in_px_needs_no_other_length():
    lens = Lens(focus_distance_m=2.0, aperture_mm=44.8, focal_length_px=519)
    np.testing.assert_allclose(coc_diameter_px([1.0, 4.0], lens), 519 * 0.0448 / 2 * np.array([-1.0, 0.5]))
    with pytest.raises(LensError, match="focal_length_mm"):
        coc_diameter_m(1.0, lens)


def test_equivalent_descriptions_of_one_camera_agree():
    by_width = Lens(focus_distance_m=2, aperture_mm=25, focal_length_mm=50, sensor_width_mm=36)
    by_pitch = Lens(focus_distance_m=2, f_number=2, focal_length_mm=50, pixel_pitch_um=36e3 / 640)
    by_px = Lens(focus_distance_m=2, aperture_mm=25, focal_length_px=by_width.sensor_distance_px(640))
    reference = coc_diameter_px(DEPTHS_M, by_width, width_px=640)
    for lens in (by_pitch, by_px):
        np.testing.assert_allclose(coc_diameter_px(DEPTHS_M, lens), reference, rtol=1e-12)


def test_presets_hold_the_facts_of_their_sources():
    d3net = Lens.preset("d3net")
    assert d3net.aperture_diameter_m == pytest.approx(0.015 / 2.8)
    assert sigma_px(10.0, d3net) == pytest.approx(3.0)
    assert Lens.preset("kinect").sensor_distance_px() == 519
    syndof = Lens.preset("syndof")
    np.testing.assert_allclose(sigma_px([0.5, 1.0, -29.0], syndof), [0, 0, 7.0])


def test_syndof_aperture_gives_each_image_its_largest_coc(rng):
    depth = rng.uniform(0.7, 9, (20, 30))
    depth[3, 4] = 0
    solved = Lens.preset("syndof").for_depth(depth)
    coc = coc_diameter_px(np.where(depth > 0, depth, 2.0), solved)
    assert np.abs(coc).max() == pytest.approx(29.0, rel=1e-12)
    with pytest.raises(LensError, match="for_depth"):
        coc_diameter_px(depth, Lens.preset("syndof"))


@given(
    focus=st.floats(0.2, 50),
    depths=st.lists(st.floats(0.05, 200), min_size=2, max_size=20, unique=True),
    name=st.sampled_from([name for name in PRESETS if name != "syndof"]),
)
def test_signed_coc_grows_with_depth_and_its_size_on_either_side_of_the_focus(focus, depths, name):
    coc = coc_diameter_px(np.sort(depths), Lens.preset(name, focus_distance_m=focus), width_px=640)
    assert (np.diff(coc) >= 0).all()
    assert (coc[np.sort(depths) < focus] <= 0).all()
    assert (coc[np.sort(depths) > focus] >= 0).all()


def test_infinitely_far_points_reach_the_limit_and_the_cap_holds():
    lens = Lens.preset("kinect")
    assert coc_diameter_px(math.inf, lens) == pytest.approx(519 * 0.0448 / 2)
    capped = Lens.preset("kinect", max_coc_px=5)
    np.testing.assert_allclose(coc_diameter_px([0.5, math.inf], capped), [-5, 5])


@given(focus=st.floats(0.3, 20), limit=st.floats(0.1, 30))
def test_depth_of_field_ends_where_the_coc_reaches_the_limit(focus, limit):
    lens = Lens.preset("paper", focus_distance_m=focus)
    near, far = depth_of_field_m(lens, coc_limit_px=limit, width_px=640)
    assert -coc_diameter_px(near, lens, width_px=640) == pytest.approx(limit, rel=1e-6)
    assert coc_diameter_px(far, lens, width_px=640) <= limit * (1 + 1e-6)
    if math.isfinite(far):
        assert coc_diameter_px(far, lens, width_px=640) == pytest.approx(limit, rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"focus_distance_m": 0.05}, ["focus_distance_m=0.05", "focal length 0.07 m"]),
        ({"focus_distance_m": 0.07}, ["0.07"]),
        ({"focus_distance_m": -1}, ["-1"]),
        ({"focus_distance_m": math.nan}, ["nan"]),
        ({"f_number": 2.0, "aperture_mm": 3.0}, ["aperture", "more than once", "f_number=2"]),
        ({"sensor_width_mm": 36, "pixel_pitch_um": 5}, ["sensor", "more than once"]),
        ({"aperture_mm": 0}, ["aperture_mm=0"]),
        ({"sensor_distance": "far"}, ["'far'"]),
        ({"focal_length_mm": "70mm"}, ["'70mm'", "number"]),
        ({"colour": 1}, ["colour"]),
    ],
)
def test_impossible_lenses_are_refused_with_the_value(fields, words):
    with pytest.raises(LensError) as error:
        Lens.preset("paper", **fields)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"focal_length_mm": 50, "sensor_width_mm": 36}, "aperture is missing"),
        ({"focal_length_mm": 50, "aperture_mm": 25}, "sensor is missing"),
        ({"aperture_mm": 25, "sensor_width_mm": 36}, "focal_length_mm is missing"),
        ({"f_number": 2, "focal_length_px": 500}, "f_number=2 needs focal_length_mm"),
    ],
)
def test_incomplete_lenses_say_what_is_missing(fields, word):
    with pytest.raises(LensError, match=word):
        Lens(focus_distance_m=2.0, **fields)


def test_a_change_replaces_the_presets_alternative_and_is_recorded_in_the_name():
    lens = Lens.preset("paper", f_number=2.8, pixel_pitch_um=20)
    assert lens.aperture_mm is None
    assert lens.sensor_width_mm is None
    assert lens.name == "paper, changed"
    assert Lens.preset("paper", focus_distance_m=3).name == "paper"
    assert Lens.preset("paper", aperture_mm=44.8).name == "paper"


def test_json_round_trip_is_exact():
    for name in PRESETS:
        lens = Lens.preset(name, max_coc_px=12.5)
        assert Lens(**lens.to_json()) == lens


def test_fields_that_change_nothing_leave_the_json_of_older_stores_as_it_was():
    older = {
        "focus_distance_m", "aperture_mm", "f_number", "solve_max_coc_px", "focal_length_mm", "sensor_width_mm",
        "pixel_pitch_um", "focal_length_px", "max_coc_px", "sigma_per_coc", "sharp_below_px", "sensor_distance", "name",
    }  # fmt: skip
    assert set(Lens.preset("paper").to_json()) == older
    real = Lens.preset("paper", focus_blur_px=0.35, corner_light=0.92)
    assert set(real.to_json()) == older | {"focus_blur_px", "corner_light"}
    assert Lens(**real.to_json()) == real


def test_in_focus_blur_adds_to_defocus_as_variance():
    lens = Lens.preset("d3net-camera", focus_blur_px=0.4)
    np.testing.assert_allclose(sigma_px([0.0, 1.0, -10.0], lens), np.sqrt(np.array([0, 0.3, 3.0]) ** 2 + 0.16))


def test_blur_of_a_small_aperture_and_what_is_added_make_the_whole():
    whole = Lens.preset("d3net-camera")
    small, added = whole.changed(f_number=8), whole.beyond(f_number=8)
    coc = [coc_diameter_px(DEPTHS_M, lens, width_px=645) for lens in (whole, small, added)]
    np.testing.assert_allclose(coc[0] ** 2, coc[1] ** 2 + coc[2] ** 2, rtol=1e-12)
    with pytest.raises(LensError, match="must be smaller"):
        whole.beyond(f_number=2)


def test_the_old_name_of_a_preset_still_works_and_the_camera_has_its_own():
    assert Lens.preset("d3net") == Lens.preset("d3net-script")
    camera = Lens.preset("d3net-camera")
    assert (camera.focal_length_mm, camera.f_number, camera.sensor_width_mm) == (35, 2.8, 23.6)
    assert camera.focus_distance_m == 1.7


@pytest.mark.parametrize("name", PRESETS)
def test_a_saved_lens_is_the_lens(tmp_path, name):
    lens = Lens.preset(name, focus_blur_px=0.3, corner_light=0.9)
    assert Lens.load(lens.save(tmp_path / "lens.toml", {"calibration": {"samples": 3, "ci_m": [1.0, 2.0]}})) == lens


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("lens = [", "not a TOML"),
        ("a = 1\n", r"no table \[lens\]"),
        ("[lens]\nfocus_m = 2.0\n", "focus_m in .* is not a property"),
        ("[lens]\nfocus_distance_m = 2.0\n", "aperture is missing"),
        ("[lens]\naperture_mm = 2.0\n", "focus_distance_m"),
        ("[lens]\nfocus_distance_m = 'far'\naperture_mm = 1.0\nfocal_length_px = 500\n", "is not a number"),
        ("[lens]\nfocus_distance_m = 2.0\naperture_mm = 1.0\nfocal_length_px = 500\nname = 3\n", "is not text"),
        ("[lens]\nfocus_distance_m = 2\naperture_mm = 1\nfocal_length_px = 500\ncorner_light = 1.5\n", "corner_light"),
    ],
)
def test_a_file_that_is_no_lens_is_named_with_the_reason(tmp_path, content, message):
    path = tmp_path / "lens.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LensError, match=message) as caught:
        Lens.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["paper", "kinect", "d3net-script"])
def test_a_lens_counts_in_the_pixels_of_a_resized_frame(name):
    lens = Lens.preset(name, max_coc_px=11.0, sharp_below_px=0.5, focus_blur_px=0.8)
    small = lens.resized((480, 640), (107, 140))
    before = sigma_px(coc_diameter_px(DEPTHS_M, lens, width_px=640), lens)
    assert sigma_px(coc_diameter_px(DEPTHS_M, small, width_px=140), small) == pytest.approx(before * 140 / 640)
    assert small.resized((107, 140), (480, 640)).to_json() == pytest.approx(lens.to_json())
    assert lens.resized((480, 640), (480, 640)) is lens


def test_only_a_lens_without_a_length_in_pixels_is_the_same_for_every_frame():
    assert not Lens.preset("paper", max_coc_px="none").counts_pixels
    assert Lens.preset("paper").resized((480, 640), (120, 160)) == Lens.preset("paper")
    for lens in (Lens.preset("kinect"), Lens.preset("d3net-script"), Lens.preset("paper", focus_blur_px=0.3),
                 Lens.preset("paper", max_coc_px=20), Lens.preset("syndof")):  # fmt: skip
        assert lens.counts_pixels


CAMERA = {"aperture_mm": 10.0, "focal_length_px": 500.0}


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 1e300, 1e-300, 5e-324, float("nan"), float("inf"), True, "2", [2], None]
)
@pytest.mark.parametrize("field", ["focus_distance_m", "aperture_mm", "sigma_per_coc", "focus_blur_px", "corner_light"])
def test_numbers_that_no_lens_has_are_refused_before_anything_is_computed(field, value):
    with pytest.raises(LensError, match=field):
        Lens(**{"focus_distance_m": 2.0, **CAMERA, field: value})


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "[" + ".".join("a" * 100_000) + "]",
        "[lens]\nfocus_distance_m = " + "9" * 5000,
        "lens = 3",
        "\0",
    ],
    ids=["deep", "deep key", "digits", "number", "zero byte"],
)
def test_a_lens_file_of_any_content_is_a_named_error(text, tmp_path):
    (tmp_path / "lens.toml").write_text(text)
    with pytest.raises(LensError, match=r"lens\.toml: "):
        Lens.load(tmp_path / "lens.toml")


@pytest.mark.parametrize("field", ["sigma_per_coc", "focus_blur_px"])
def test_a_blur_wider_than_any_frame_is_no_lens(field):
    # One number of a lens file else asks for terabytes, as a depth of a millimetre did.
    with pytest.raises(LensError, match=f"{field}=1e.06 must be at most"):
        Lens(**{"focus_distance_m": 2.0, **CAMERA, field: 1e6})
