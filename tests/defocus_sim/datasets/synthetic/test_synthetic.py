"""Procedural scenes: exact depth, the same bytes everywhere, detail on every surface."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from defocus_sim.datasets.synthetic.cutouts import CUTOUTS, draw_masks
from defocus_sim.datasets.synthetic.interiors import INTERIORS, SPAN_M, build_interior
from defocus_sim.datasets.synthetic.materials import MATERIALS, material_pyramids
from defocus_sim.datasets.synthetic.rendering.raycast import Ball, Cutout, Disc, Finish, Lattice, Rod, Shell
from defocus_sim.datasets.synthetic.rendering.render import Exposure, Light, Scene, depth_map, render
from defocus_sim.datasets.synthetic.rendering.shade_kernels import trilinear
from defocus_sim.datasets.synthetic.scenes import SCALES, build_scene, focal_length_px
from defocus_sim.datasets.synthetic.source import SCENES, SyntheticSource
from defocus_sim.datasets.synthetic.textures import PATTERNS, TEXELS, atlas_of, fractal, texture_pyramid
from defocus_sim.datasets.synthetic.varied import KINDS, SPANS_M, build_varied, draw_kind
from defocus_sim.errors import SourceError

HW = (48, 64)


def frame(index: int, **options):
    with SyntheticSource(**options).open() as reader:
        return reader.read(index)


def digest(frame) -> str:
    return hashlib.sha256(frame.aif.tobytes() + frame.depth_m.tobytes()).hexdigest()


def inside(solid, points: np.ndarray) -> np.ndarray:
    """Signed size of the implicit function: negative within a solid, 0 on its surface, roughly metres."""
    local = (points - solid.centre) @ solid.axes.T
    if isinstance(solid, Ball):
        return (np.linalg.norm(local / solid.half, axis=-1) - 1) * solid.half.min()
    if isinstance(solid, Rod):
        radial = np.hypot(local[..., 0], local[..., 2]) - solid.half[0]
        return np.maximum(radial, np.abs(local[..., 1]) - solid.half[1])
    box = (np.abs(local) - solid.half).max(axis=-1)
    return -box if isinstance(solid, Shell) else box


def lookup(pyramid, u, v, footprint):
    """Colours at (N,) places in tiles, with a footprint in texels."""
    atlas, starts = atlas_of((pyramid,))
    level = np.log2(footprint).astype(np.float32)
    return np.array([trilinear(atlas, starts[0], TEXELS, *place) for place in zip(u, v, level, strict=True)])


def check_depth(scene, hw):
    """Every depth lies on the solid that is named for it, and no body is in front of it."""
    focal = focal_length_px(hw)
    depth, owner = depth_map(scene, focal, hw)
    y, x = np.mgrid[0 : hw[0], 0 : hw[1]]
    camera = np.stack([(x + 0.5 - hw[1] / 2) / focal, (y + 0.5 - hw[0] / 2) / focal, np.ones(hw)], axis=-1)
    points = camera @ scene.rotation * depth.astype(np.float64)[..., None]
    # The ray parameter is z-depth: the camera's third axis.
    np.testing.assert_allclose(points @ scene.rotation[2], depth, rtol=1e-6)
    assert np.isfinite(depth).all()
    for number, solid in enumerate(scene.solids):
        seen = owner == number
        if isinstance(solid, Lattice | Disc | Cutout):
            local = (points[seen] - solid.centre) @ solid.axes.T
            assert (np.abs(local[:, 2]) < 1e-5 * depth[seen]).all()
            assert (np.abs(local[:, :2]) <= solid.half[:2] * 1.0001).all()
            check_outline(solid, scene, camera @ scene.rotation, depth, seen)
            continue
        assert (np.abs(inside(solid, points[seen])) < 1e-5 * depth[seen].max(initial=1)).all()
        for part in np.linspace(0.05, 0.999, 25):
            assert inside(solid, points * part).min() > -2e-3 * depth.min()


def check_outline(solid, scene, rays, depth, seen):
    """A flat thing is seen where its outline says, and is not where that says no."""
    local_ray, start = rays @ solid.axes.T, -(solid.axes @ solid.centre)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = -start[2] / local_ray[..., 2]
        at = (start + reach[..., None] * local_ray)[..., :2] / solid.half[:2]
    if isinstance(solid, Disc):
        margin = 1 - np.hypot(at[..., 0], at[..., 1])
    elif isinstance(solid, Cutout):
        mask = scene.masks[solid.mask].astype(np.float32)
        place = ((at + 1) / 2 * len(mask) - 0.5).astype(np.float32)
        value = cv2.remap(mask, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderValue=0)
        # Beyond the middle of the outermost texels there is nothing.
        margin = np.where(np.abs(at).max(axis=-1) < 1 - 2 / len(mask), (value - 127.5) / 255, 0)
    else:
        return
    assert (margin[seen] > -0.02).all()
    assert not ((margin > 0.02) & (reach > 0) & (reach < depth * 0.9999)).any()


@pytest.mark.parametrize("scale", SCALES)
def test_every_depth_lies_on_its_surface_and_nothing_is_in_front_of_it(scale):
    for seed in range(3):
        check_depth(build_scene(np.random.default_rng(seed), SCALES[scale], HW), HW)


@pytest.mark.parametrize("kind", KINDS)
def test_varied_scenes_have_exact_depths_within_their_scale(kind):
    for seed, scale in enumerate(SCALES):
        scene = build_varied(np.random.default_rng(seed), kind, scale, HW)
        check_depth(scene, HW)
        shot = render(scene, focal_length_px(HW), HW)
        low, high = SPANS_M[scale]
        assert low <= shot.depth_m.min() < shot.depth_m.max() <= high
        assert len(np.unique(shot.aif)) > 16


@pytest.mark.parametrize("scale", [*SCALES, "mixed"])
@pytest.mark.parametrize("size_wh", [(33, 51), (97, 32)])
def test_depth_is_dense_and_within_the_scale(scale, size_wh):
    low, high = SCALES[scale].depth_m if scale in SCALES else (0.3, 60.0)
    for index in range(2):
        shot = frame(index, count=2, size_wh=size_wh, scale=scale)
        assert shot.aif.shape == (size_wh[1], size_wh[0], 3)
        assert shot.aif.dtype == np.uint8
        assert shot.depth_m.shape == (size_wh[1], size_wh[0])
        assert shot.depth_m.dtype == np.float32
        assert low <= shot.depth_m.min()
        assert shot.depth_m.max() <= high


def test_views_hold_several_bodies_and_a_spread_of_depths():
    for seed in range(10):
        scene = build_scene(np.random.default_rng(seed), SCALES["room"], (120, 160))
        depth, owner = depth_map(scene, focal_length_px((120, 160)), (120, 160))
        share = np.bincount(owner.ravel(), minlength=len(scene.solids)) / owner.size
        assert (share[1:] > 0.003).sum() >= 4
        assert share[1:].max() < 0.5
        low, high = np.quantile(depth, [0.05, 0.95])
        assert high / low > 1.6


@pytest.mark.parametrize("scenes", SCENES)
def test_a_frame_depends_on_seed_and_index_only(scenes):
    few, many = (
        SyntheticSource(count=3, size_wh=(48, 40), scenes=scenes),
        SyntheticSource(count=9, size_wh=(48, 40), scenes=scenes, test_fraction=0.5),
    )
    with few.open() as first, many.open() as second:
        second.read(8)
        backwards = [digest(second.read(index)) for index in (2, 1, 0)][::-1]
        forwards = [digest(first.read(index)) for index in range(3)]
    assert forwards == backwards
    assert len(set(forwards)) == 3
    assert digest(frame(0, count=1, size_wh=(48, 40), seed=1, scenes=scenes)) != forwards[0]


@pytest.mark.parametrize("scenes", SCENES)
def test_bytes_are_the_same_in_another_process_and_with_other_thread_counts(scenes):
    code = (
        "import sys, cv2; cv2.setNumThreads(int(sys.argv[1]))\n"
        "from test_synthetic import digest, frame\n"
        "print(digest(frame(1, count=2, size_wh=(161, 121), scenes=sys.argv[2])))"
    )
    here = digest(frame(1, count=2, size_wh=(161, 121), scenes=scenes))
    for threads in ("1", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        done = subprocess.run(
            [sys.executable, "-c", code, threads, scenes], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == here


def test_fine_detail_is_present_in_nearly_every_patch():
    for index in range(4):
        grey = cv2.cvtColor(frame(index, count=4).aif, cv2.COLOR_RGB2GRAY).astype(np.float32)
        fine = grey - cv2.GaussianBlur(grey, (0, 0), 2.0)
        energy = np.sqrt(cv2.blur(fine * fine, (24, 24)))
        assert np.quantile(energy, 0.02) > 1.0
        assert np.median(energy) > 3.0
        assert 60 < grey.mean() < 190


def test_colour_edges_are_antialiased_and_depth_edges_are_not():
    plain = [tuple(np.full((512 >> k, 512 >> k, 3), value, np.float32) for k in range(6)) for value in (0.02, 0.8)]
    room = Shell(centre=np.zeros(3), half=np.full(3, 4.0), finishes=(Finish(texture=1),))
    ball = Ball(centre=np.array([0, 0, 2.0]), half=np.full(3, 0.5), finishes=(Finish(texture=0),))
    light = Light(position=np.array([0, -1.0, 0]), reach_m=5.0, ambient=0.5)
    scene = Scene(solids=(room, ball), rotation=np.eye(3), light=light, textures=tuple(plain))
    focal = focal_length_px(HW)
    shot = render(scene, focal, HW)
    y, x = np.mgrid[0:48, 0:64]
    # Sphere of radius 0.5 at z = 2: |t d - c| = 0.5 with d = (u, v, 1) solved by hand.
    slope = ((x - 31.5) ** 2 + (y - 23.5) ** 2) / focal**2
    gap = 4 - (1 + slope) * 3.75
    expected = np.where(gap > 0, (2 - np.sqrt(np.maximum(gap, 0))) / (1 + slope), 4.0)
    np.testing.assert_allclose(shot.depth_m, expected, rtol=1e-5)
    level = shot.aif[..., 0].astype(int)
    ball_level, wall_level = level[20:28, 28:36].max(), level[2:-2, :8].min()
    between = (level > ball_level * 1.4) & (level < wall_level * 0.9)
    on_edge = cv2.morphologyEx((expected < 2).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    assert between.sum() >= 8
    assert not (between & ~on_edge).any()


def test_every_kind_of_scene_appears_and_varied_scenes_come_in_every_scale():
    assert {draw_kind(np.random.default_rng(seed)) for seed in range(100)} == set(KINDS)
    assert SyntheticSource(scenes="varied").scale == "mixed"
    assert SyntheticSource().scale == "room"
    reach = [frame(index, count=12, size_wh=(48, 36), scenes="varied").depth_m for index in range(12)]
    assert min(depth.min() for depth in reach) < 0.6
    assert max(depth.max() for depth in reach) > 12


def test_interiors_keep_their_depths_and_begin_before_the_lens():
    depths = [frame(index, count=15, size_wh=(64, 48), scenes="interiors").depth_m for index in range(15)]
    assert all(SPAN_M[0] <= depth.min() and depth.max() <= SPAN_M[1] for depth in depths)
    # What is near is low in the picture or at its sides, as desks and walls are: more often than not by far.
    low, high = (np.mean([np.median(depth[rows]) for depth in depths]) for rows in (np.s_[36:], np.s_[:24]))
    assert low < 0.85 * high
    reach = [np.quantile(depth, 0.95) / np.quantile(depth, 0.05) for depth in depths]
    assert np.median(reach) > 1.6


@pytest.mark.parametrize(("seed", "index", "view_deg"), [(91, 96, 57.0), (92, 2004, 36.0)])
def test_thin_things_before_the_lens_are_left_out(seed, index, view_deg):
    # Frames with a leaf at 0.40 m and a rod at 0.23 m, between the rays of the probe.
    source = {"size_wh": (320, 240), "scenes": "interiors", "seed": seed, "field_of_view_deg": view_deg}
    assert frame(index, count=index + 1, **source).depth_m.min() >= SPAN_M[0]


@pytest.mark.parametrize("kind", INTERIORS)
def test_every_interior_can_be_built_and_seen_through_a_long_lens(kind):
    for seed in range(3):
        scene = build_interior(np.random.default_rng(seed), kind, (48, 64), 30.0)
        shot = render(scene, focal_length_px((48, 64), 30.0), (48, 64))
        assert np.isfinite(shot.depth_m).all()
        assert shot.aif.max() > 40


def test_a_narrower_field_of_view_is_the_middle_of_a_wide_one():
    half = float(np.degrees(2 * np.arctan(np.tan(np.radians(57 / 2)) / 2)))
    wide = frame(0, count=1, size_wh=(128, 96))
    narrow = frame(0, count=1, size_wh=(64, 48), field_of_view_deg=half)
    np.testing.assert_allclose(narrow.depth_m, wide.depth_m[24:72, 32:96], rtol=1e-6)
    source = SyntheticSource(size_wh=(64, 48), field_of_view_deg=half)
    assert source.focal_length_px() == pytest.approx(SyntheticSource(size_wh=(128, 96)).focal_length_px())
    assert source.provenance()["field_of_view_deg"] == half


def test_varied_pictures_differ_in_brightness_and_nights_are_dark_with_bright_spots():
    def pictures(kind):
        scenes = [build_varied(np.random.default_rng(seed), kind, "room", (90, 120)) for seed in range(6)]
        return [render(scene, focal_length_px((90, 120)), (90, 120)).aif for scene in scenes]

    days, nights = pictures("clutter"), pictures("night")
    assert max(day.mean() for day in days) > 1.4 * min(day.mean() for day in days)
    assert np.mean([night.mean() for night in nights]) < 0.7 * np.mean([day.mean() for day in days])
    assert sum(night.max() == 255 for night in nights) >= 4


def plain_scene(ball: Finish, light: Light, exposure: Exposure | None = None) -> Scene:
    """A grey room of 8 m with a ball of 1 m at a distance of 2 m."""
    grey = tuple(np.full((TEXELS >> k, TEXELS >> k, 3), 0.3, np.float32) for k in range(6))
    room = Shell(centre=np.zeros(3), half=np.full(3, 4.0), finishes=(Finish(texture=0),))
    solid = Ball(centre=np.array([0, 0, 2.0]), half=np.full(3, 0.5), finishes=(ball,))
    return Scene(solids=(room, solid), rotation=np.eye(3), light=light, textures=(grey,), exposure=exposure)


def test_a_lamp_throws_the_shadow_that_geometry_says():
    lamp = np.array([-1.5, 0, 0])
    hw, focal = (96, 128), focal_length_px((96, 128))
    shots = [
        render(
            plain_scene(
                Finish(texture=0),
                Light(position=lamp, reach_m=50.0, ambient=0.2, shadow_tangent=tangent, aim=np.array([0, 0, 2.0])),
                Exposure(mean=0.1, bright=1.0, ceiling=1.0),
            ),
            focal,
            hw,
        )
        for tangent in (0.0, 1.2)
    ]
    y, x = np.mgrid[0 : hw[0], 0 : hw[1]]
    ray = np.stack([(x + 0.5 - hw[1] / 2) / focal, (y + 0.5 - hw[0] / 2) / focal, np.ones(hw)], axis=-1)
    points = ray * shots[0].depth_m[..., None]
    # The distance of the line from lamp to point from the ball's centre.
    towards = points - lamp
    along = towards / np.linalg.norm(towards, axis=-1, keepdims=True)
    miss = np.linalg.norm(np.cross(np.array([0, 0, 2.0]) - lamp, along), axis=-1)
    wall = shots[0].depth_m > 3
    ratio = shots[1].aif[..., 0] / np.maximum(shots[0].aif[..., 0].astype(float), 1)
    dark, light = wall & (miss < 0.46), wall & (miss > 0.56)
    assert dark.sum() > 30
    assert ratio[dark].max() < 0.85 * ratio[light].min()


def test_gloss_makes_a_highlight_and_emission_a_clipped_spot():
    light = Light(position=np.array([0, -2.0, 0]), reach_m=50.0, ambient=0.3)
    fixed = Exposure(mean=0.15, bright=0.5, ceiling=4.0)
    matt, glossy, shining = (
        render(plain_scene(Finish(texture=0, **more), light, fixed), focal_length_px(HW), HW)
        for more in ({}, {"gloss": 4.0, "sharpness": 60.0}, {"emission": 30.0})
    )
    ball = matt.depth_m < 2.5
    assert glossy.aif[ball].max() > 1.5 * matt.aif[ball].max()
    assert glossy.aif[ball].min() < 1.2 * matt.aif[ball].min() + 2
    assert (shining.aif[cv2.erode(ball.astype(np.uint8), np.ones((3, 3))) > 0] == 255).all()
    np.testing.assert_array_equal(shining.depth_m, matt.depth_m)


@given(
    mean=st.floats(0.02, 0.4),
    gamma=st.floats(0.7, 1.4),
    contrast=st.floats(-0.5, 0.8),
)
def test_every_exposure_keeps_the_order_of_lights(mean, gamma, contrast):
    light = Light(position=np.array([0, -2.0, 0]), reach_m=50.0, ambient=0.3)
    looks = (Exposure(), Exposure(mean=mean, gamma=gamma, contrast=contrast))
    usual, other = (
        render(plain_scene(Finish(texture=0), light, look), focal_length_px(HW), HW).aif[..., 0] for look in looks
    )
    # The pixels of one code are brighter, in the other exposure, than those two codes below.
    for code in range(2, 256):
        here, below = other[usual == code], other[usual <= code - 2]
        assert not here.size or not below.size or here.min() >= below.max()


@pytest.mark.parametrize("name", MATERIALS)
def test_materials_are_albedos_and_soft_ones_stay_soft(name):
    (pyramid,) = material_pyramids((name,), np.random.default_rng(4))
    assert [level.shape for level in pyramid] == [(TEXELS >> k, TEXELS >> k, 3) for k in range(6)]
    assert pyramid[0].min() > 0
    assert pyramid[0].max() <= 1
    grey = pyramid[0].mean(axis=-1)
    step = sum(np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1)) / grey.mean()
    if name in ("plain", "skin"):
        assert step < 0.02
    else:
        assert step > 0.008


@pytest.mark.parametrize("name", CUTOUTS)
def test_outlines_have_an_inside_and_an_outside(name):
    for seed in range(8):
        (mask,) = draw_masks((name,), np.random.default_rng(seed))
        assert 0.01 < (mask > 127).mean() < 0.9


@given(
    count=st.integers(1, 400),
    fraction=st.floats(0, 1, allow_nan=False),
    seed=st.integers(0, 2**32),
)
def test_the_split_holds_the_fraction_exactly(count, fraction, seed):
    samples = SyntheticSource(count=count, test_fraction=fraction, seed=seed).samples()
    tests = sum(sample.split == "test" for sample in samples)
    assert abs(tests - count * fraction) <= 1
    if count >= 2 and 0 < fraction < 1:
        assert 1 <= tests <= count - 1
    if 1 <= round(count * fraction) <= count - 1:
        assert tests == round(count * fraction)
    assert len({sample.name for sample in samples}) == len({sample.scene for sample in samples}) == count
    assert {sample.split for sample in samples} <= {"train", "val", "test"}


@given(count=st.integers(1, 400), fraction=st.floats(0, 1, allow_nan=False), seed=st.integers(0, 2**32))
def test_val_is_drawn_from_train_and_leaves_test_alone(count, fraction, seed):
    with_val, without = (
        {sample.name: sample.split for sample in SyntheticSource(count=count, val_fraction=f, seed=seed).samples()}
        for f in (fraction, 0)
    )
    assert all(with_val[name] == "test" for name, split in without.items() if split == "test")
    train = [name for name, split in without.items() if split == "train"]
    held_out = [name for name in train if with_val[name] == "val"]
    assert abs(len(held_out) - fraction * len(train)) <= 1
    if 0 < fraction < 1 and len(train) >= 4:
        assert 1 <= len(held_out) <= len(train) - 1


def test_names_are_numbered_and_the_source_travels():
    source = SyntheticSource(count=13, size_wh=(64, 48))
    assert source.samples()[12].name == "synthetic-000012"
    assert source.frame_hw() == (48, 64)
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source
    assert copy.samples() == source.samples()
    facts = json.loads(json.dumps(source.provenance()))
    assert facts["kind"] == "synthetic"
    assert facts["seed"] == 0
    assert facts["focal_length_px"] == pytest.approx(32 / np.tan(np.radians(28.5)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "count=0"),
        ({"size_wh": (31, 64)}, "size_wh=(31, 64)"),
        ({"size_wh": (64, 4096)}, "2048"),
        ({"scale": "ocean"}, "tabletop"),
        ({"scenes": "films"}, "varied"),
        ({"scenes": "interiors", "scale": "street"}, "leave it out"),
        ({"field_of_view_deg": 90.0}, "20 to 57"),
        ({"test_fraction": 1.5}, "test_fraction=1.5"),
        ({"test_fraction": float("nan")}, "test_fraction=nan"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(options, words):
    with pytest.raises(SourceError) as caught:
        SyntheticSource(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("index", [-1, 2])
def test_an_index_beyond_the_frames_is_refused(index):
    with SyntheticSource(count=2).open() as reader, pytest.raises(SourceError, match=r"0\.\.1"):
        reader.read(index)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_textures_tile_and_keep_contrast_when_shrunk(pattern):
    rng = np.random.default_rng(3)
    pyramid = texture_pyramid(pattern, rng, fractal(rng))
    finest, far = pyramid[0], pyramid[3]
    # A joint or a board may end at the border as it does inside: the seam is no worse than the worst column and row.
    for axis in (0, 1):
        steps = np.abs(finest - np.roll(finest, 1, axis=axis)).mean(axis=(1 - axis, 2))
        assert steps[0] <= 1.3 * steps[1:].max()
    assert far.std() > 0.2 * finest.std()
    np.testing.assert_allclose(finest.mean((0, 1)), far.mean((0, 1)), rtol=1e-3)
    assert finest.min() > 0
    assert finest.max() <= 1


def test_a_lookup_wraps_and_blends_levels():
    rng = np.random.default_rng(0)
    pyramid = texture_pyramid("leaves", rng, fractal(rng))
    u = rng.random(5000).astype(np.float32)
    v = rng.random(5000).astype(np.float32)
    one = np.ones(5000, np.float32)
    np.testing.assert_allclose(lookup(pyramid, u + 2, v - 3, one), lookup(pyramid, u, v, one), atol=0.02)
    centre = (np.arange(512, dtype=np.float32) + 0.5) / 512
    np.testing.assert_allclose(
        lookup(pyramid, centre, centre[::-1].copy(), one[:512]),
        pyramid[0][511 - np.arange(512), np.arange(512)],
        atol=1e-5,
    )
    sharp, soft = lookup(pyramid, u, v, one), lookup(pyramid, u, v, one * 8)
    assert soft.std() < sharp.std()
