import shutil

import cv2
import numpy as np
import photographs
import pytest

from defocus_sim import Lens
from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import convert
from defocus_sim.datasets.pairs import PairsSource
from defocus_sim.errors import ConvertError, ShardError, SourceError


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photographs.write_pairs(folder, 4)
    return folder


def folders(root, **options):
    return PairsSource(
        defocused=root / "defocused", sharp=root / "sharp", **{"depth": root / "depth", "depth_scale": 1e-3} | options
    )


def test_what_is_read_lies_on_the_defocused_photograph_and_has_its_light(photos):
    source = folders(photos)
    scenes = photographs.scenes(4)
    assert source.frame_hw() == (160 - 32, 240 - 32)
    with source.open() as reader:
        for index, (aif, depth_m) in enumerate(scenes):
            frame = reader.read(index)
            stored = cv2.imread(str(photos / "defocused" / f"{index:03d}.png"))[16:-16, 16:-16, ::-1]
            assert np.array_equal(frame.defocused, stored)
            np.testing.assert_allclose(frame.depth_m, depth_m[16:-16, 16:-16], atol=6e-4)
            expected = photographs.exposed(aif, (0.9, 0.9, 0.9))[16:-16, 16:-16].astype(float)
            # Resampled twice; as it was written it is three times as far off.
            assert np.abs(frame.aif - expected).mean() < 4
            unmoved = cv2.imread(str(photos / "sharp" / f"{index:03d}.png"))[16:-16, 16:-16, ::-1].astype(float)
            assert np.abs(frame.aif - expected).mean() < np.abs(unmoved - expected).mean() / 3
            assert np.abs(np.array(frame.found["gain"]) / 0.9 - 1).max() < 0.03
            assert frame.found["displacement_px"] == pytest.approx(np.hypot(1.3, 0.6), abs=0.15)


def test_aligned_pairs_are_stored_byte_by_byte(photos):
    with folders(photos, motion="none", exposure=False).open() as reader:
        frame = reader.read(0)
    assert np.array_equal(frame.aif, cv2.imread(str(photos / "sharp/000.png"))[..., ::-1])
    assert frame.aif.shape == (160, 240, 3)


def test_a_store_of_photographs_says_measured_and_what_was_found(photos, tmp_path):
    camera = photographs.LENS
    source = folders(photos, test_fraction=0.5)
    settings = ConversionSettings(source=source, lens=source.stored_lens(camera))
    store = convert(settings, tmp_path / "a.zarr", workers=1).store
    assert store.manifest.rendering["mode"] == "measured"
    split = store.split("train")
    assert len(split.measured) == len(split) == 2
    assert set(split.measured[0]) == {"registration", "affine", "displacement_px", "correlation", "gain"}
    # Cutting the border off leaves the size of a pixel.
    assert split.lens(0).sensor_distance_px(208) == pytest.approx(camera.sensor_distance_px(240))


def test_a_store_without_depth_and_lens_has_holes_and_refuses_to_name_a_lens(photos, tmp_path):
    settings = ConversionSettings(source=folders(photos, depth=None), lens=None)
    store = convert(settings, tmp_path / "a.zarr", workers=1).store
    split = store.split("train")
    assert not split.read([0])["depth_m"].any()
    assert store.manifest.statistics["coc_px"] is None
    assert not split.has_lens(0)
    with pytest.raises(ShardError, match="--lens or --preset"):
        split.lens(0)


def test_a_simulation_needs_a_lens(photos):
    from sources import SmoothSource

    with pytest.raises(ConvertError, match="a lens is needed"):
        ConversionSettings(source=SmoothSource(), lens=None)


def test_pairs_that_cannot_be_used_are_named_and_the_rest_is_done(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "p")
    root = tmp_path / "p"
    photographs.write_pairs(root / "more", 5)
    for name in ("defocused", "sharp", "depth"):
        for number in range(4):
            (root / "more" / name / f"00{number}.png").unlink()
    shutil.copy(root / "defocused/000.png", root / "defocused/alone.png")
    for role in ("defocused", "sharp", "depth"):
        for new in ("other", "size", "black", "broken"):
            shutil.copy(root / role / "001.png", root / role / f"{new}.png")
    shutil.copy(root / "sharp/002.png", root / "sharp/other.png")
    cv2.imwrite(str(root / "sharp/size.png"), np.zeros((80, 120, 3), np.uint8))
    cv2.imwrite(str(root / "depth/black.png"), np.zeros((160, 240), np.uint16))
    whole = (root / "sharp/001.png").read_bytes()
    (root / "sharp/broken.png").write_bytes(whole[: len(whole) // 2])
    source = folders(root)
    result = convert(
        ConversionSettings(source=source, lens=None), tmp_path / "a.zarr", workers=2, on_error="skip"
    ).store
    assert sorted(result.split("train").names) == ["000", "001", "002", "003"]
    reasons = dict(source.skipped())
    reasons |= {frame["name"]: frame["reason"] for frame in result.manifest.skipped}
    for name, words in {
        "alone": "has no sharp and no depth file",
        "other": "do not register",
        "size": "the defocused size.png is 240x160 but the sharp size.png is 120x80",
        "black": "no valid depth",
        "broken": "truncated",
    }.items():
        assert words in reasons[name], (name, reasons)
        assert "\n" not in reasons[name]


def test_pairs_of_an_unusual_size_are_left_out_by_name(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "p")
    for role in ("defocused", "sharp", "depth"):
        image = cv2.imread(str(tmp_path / "p" / role / "000.png"), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(tmp_path / "p" / role / "tall.png"), np.rot90(image))
    source = folders(tmp_path / "p")
    assert [name for name, _ in source.skipped()] == ["tall"]
    assert len(source.samples()) == 4


def test_a_pair_farther_apart_than_the_border_names_the_border_it_needs(photos):
    with (
        folders(photos, border_px=1).open() as reader,
        pytest.raises(SourceError, match=r"000: .* more than the border of 1 px: give --border 2"),
    ):
        reader.read(0)


def test_order_pairs_what_names_do_not_and_refuses_unequal_counts(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "p")
    for path in (tmp_path / "p/sharp").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    root = tmp_path / "p"
    with pytest.raises(SourceError, match="no readable pair"):
        folders(root).samples()
    assert [s.name for s in folders(root, by_order=True).samples()] == ["000", "001", "002", "003"]
    (root / "sharp/x003.png").unlink()
    with pytest.raises(SourceError, match=r"4 defocused, 3 sharp, 4 depth"):
        folders(root, by_order=True).samples()


def test_dpdd_brings_its_splits_and_its_whole_views(photos, tmp_path):
    for number, split in enumerate(("train_c", "val_c", "test_c", "test_l")):
        for side, role in (("source", "defocused"), ("target", "sharp")):
            (tmp_path / split / side).mkdir(parents=True)
            # DPDD's two files of a scene have names of their own.
            name = f"1P0A{number}{side[0]}.png"
            shutil.copy(photos / role / f"00{number}.png", tmp_path / split / side / name)
    samples = PairsSource(root=tmp_path).samples()
    assert {(s.name, s.split) for s in samples} == {
        ("train_c/1P0A0s", "train"),
        ("val_c/1P0A1s", "val"),
        ("test_c/1P0A2s", "test"),
    }


def test_a_list_names_files_splits_and_scenes(photos, tmp_path):
    path = tmp_path / "list.csv"
    place = photos.as_posix()
    path.write_text(
        "defocused,sharp,depth,split,scene\n"
        f"{place}/defocused/000.png,{place}/sharp/000.png,{place}/depth/000.png,test,kitchen\n"
        f"{place}/defocused/001.png,{place}/sharp/001.png\n"
        f"{place}/defocused/002.png,{place}/sharp/nowhere.png\n"
    )
    source = PairsSource(pairs_csv=path, depth_scale=1e-3)
    assert [(s.split, s.scene.rsplit("/", 1)[-1]) for s in source.samples()] == [("test", "kitchen"), ("train", "001")]
    assert source.skipped()[0][1].endswith("nowhere.png is not there")
    assert source.notes() == ("1 pairs have no depth: theirs is all holes",)
    path.write_text("a.png\n")
    with pytest.raises(SourceError, match="line 1"):
        PairsSource(pairs_csv=path, depth_scale=1e-3).samples()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of"),
        ({"root": 1, "pairs_csv": 2}, "give one of"),
        ({"defocused": 1}, "belong together"),
        ({"root": 1, "depth": 2}, "depth folder"),
        ({"root": 1, "motion": "twist"}, "twist"),
        ({"root": 1, "border_px": -1}, "border_px=-1"),
        ({"root": 1, "falloff": True, "exposure": False}, "--falloff"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(SourceError, match=message):
        PairsSource(**options)


def test_a_limit_takes_frames_from_every_split_all_over_it(tmp_path):
    from sources import SmoothSource

    source = SmoothSource()
    settings = ConversionSettings(source=source, lens=Lens.preset("paper"), limit=5)
    store = convert(settings, tmp_path / "a.zarr", workers=1).store
    assert [len(store.split(name)) for name in ("train", "test")] == [3, 2]
    assert store.split("train").names == ("frame-1", "frame-5", "frame-7")
    assert store.manifest.source["limit"] == 5
    with pytest.raises(ConvertError, match="limit=0"):
        ConversionSettings(source=source, lens=Lens.preset("paper"), limit=0)


def test_stores_of_photographs_merge_with_what_was_found(photos, tmp_path):
    from defocus_sim.convert.merge import merge

    for name, fraction in (("a", 0.0), ("b", 0.0)):
        root = tmp_path / name
        shutil.copytree(photos, root)
        for number in range(4):
            if (number < 2) == (name == "b"):
                for role in ("defocused", "sharp", "depth"):
                    (root / role / f"00{number}.png").unlink()
        source = folders(root, test_fraction=fraction)
        lens = source.stored_lens(photographs.LENS) if name == "a" else None
        convert(ConversionSettings(source=source, lens=lens), tmp_path / f"{name}.zarr", workers=1)
    both = merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "both.zarr").split("train")
    assert len(both.measured) == len(both) == 4
    assert [both.has_lens(i) for i in range(4)] == [True, True, False, False]
