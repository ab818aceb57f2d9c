from __future__ import annotations

import dataclasses
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from dfd_cli import predict as predict_command
from PIL import Image, ImageCms, ImageSequence
from rich.console import Console

from defocus_sim.lens import Lens, coc_diameter_px
from dfd_train.config.model import variant
from dfd_train.config.train import recipe_config
from dfd_train.errors import ConfigError, NonFiniteError, PictureError
from dfd_train.model.build import build_model, run_model
from dfd_train.model.reading import read_sides
from dfd_train.model.two_headed import TwoHeadedNet
from dfd_train.optics.camera import camera_of
from dfd_train.prediction.files import PredictConfig, predict_files
from dfd_train.prediction.images import find_pictures, gif_bytes, output_names, read_picture
from dfd_train.prediction.predict import layout_scales, predict
from dfd_train.prediction.refocus import focus_steps, rack_focus, refocus
from dfd_train.prediction.tiling import Tiling, axis_tiles, receptive_radius
from dfd_train.runs.checkpoint import load_checkpoint, save_checkpoint
from dfd_train.training.train import train

ENDINGS = (".json", "_depth.npy", "_depth.png", "_depth_colour.png", "_restored.png", "_sheet.jpg")


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose restoration is nearly its input."""
    out = tmp_path_factory.mktemp("runs") / "run"
    config = recipe_config("fast", shards=store, out=out, model="tiny", size="36x48", epochs=1, batch_size=10, lr=1e-9)
    train(config, console=Console(quiet=True))
    return out


@pytest.fixture(scope="module")
def net() -> TwoHeadedNet:
    """A random network whose normalisations have seen data, so that it answers in a sensible range."""
    torch.manual_seed(0)
    net = TwoHeadedNet(variant("tiny"), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(30):
            net(torch.rand(2, 3, 64, 64))
        # What reaches the last convolution is positive: so is the depth, and some metres large.
        net.depth_head.last.weight.abs_().mul_(40)
    return net.eval()


def scene(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(1)
    coarse = rng.random((height // 8 + 2, width // 8 + 2, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    return (image * np.iinfo(dtype).max).astype(dtype)


def dfd_predict(*arguments: object) -> Result:
    return CliRunner().invoke(predict_command.main, list(map(str, arguments)))


def test_weights_of_all_tiles_add_up_to_one_and_tiles_cover_the_axis() -> None:
    for length in (1, 63, 64, 65, 200, 333):
        total = np.zeros(length)
        for tile in axis_tiles(length, Tiling(tile=64, overlap=32)):
            assert tile.start % 32 == 0
            assert tile.stop - tile.start <= 64
            total[tile.start : tile.stop] += tile.weights
        assert np.allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("stem", ["paper", "highpass", "blur"])
def test_no_input_beyond_the_receptive_radius_changes_an_output(net: TwoHeadedNet, stem: str) -> None:
    assert (receptive_radius(net.config), receptive_radius(variant("full"))) == (391, 1143)
    config = dataclasses.replace(net.config, stem=stem)
    radius = receptive_radius(config)
    double, middle = TwoHeadedNet(config).double(), 512
    if stem == "paper":
        double.load_state_dict(net.state_dict())
    double.eval()
    image = torch.rand(1, 3, 32, 1024, dtype=torch.float64)
    with torch.inference_mode():
        before = double(image)
        image[..., middle] = 1 - image[..., middle]
        after = double(image)
    for first, second in zip(before[:2], after[:2], strict=True):
        touched = (first != second).any(dim=2).flatten(0, 1).any(dim=0).nonzero().flatten()
        assert middle - radius <= int(touched.min()) < middle - 32
        assert middle + 32 < int(touched.max()) <= middle + radius


def test_tiles_with_a_margin_of_the_radius_give_the_single_pass(net: TwoHeadedNet) -> None:
    image = scene(64, 2400)
    whole = predict(net, image, tiling=Tiling(tile=2432, overlap=0))
    tiling = Tiling(tile=2176, overlap=1056)
    assert tiling.exact_for(receptive_radius(net.config))
    tiled = predict(net, image, tiling=tiling)
    assert np.abs(tiled.depth_m - whole.depth_m).max() < 1e-5
    assert np.abs(tiled.aif.astype(int) - whole.aif).max() <= 1


def test_two_tilings_differ_by_less_than_a_grey_level_and_two_millimetres(net: TwoHeadedNet) -> None:
    image = scene(96, 1900)
    first = predict(net, image, tiling=Tiling())
    second = predict(net, image, tiling=Tiling(tile=896, overlap=384))
    assert np.abs(first.aif.astype(int) - second.aif).max() <= 1
    assert np.abs(first.depth_m - second.depth_m).max() < 2e-3
    assert first.depth_m.std() > 0.02


def test_where_tiles_meet_a_depth_is_near_or_far_and_no_average_of_both() -> None:
    """The depth's own circle of confusion is as wide as the one given, also where two tiles disagree on the side.

    But for the few pixels whose odds are at the limit.
    """
    config = dataclasses.replace(variant("tiny"), predict="coc+side", lens_input=True, heads=("depth",), init="kaiming")
    lens = Lens(focal_length_mm=35, f_number=2, focus_distance_m=2, sensor_width_mm=36)
    net = build_model(config, generator=torch.Generator().manual_seed(4)).eval()
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (96, 160, 3), dtype=np.uint8)
    with torch.no_grad():
        # A side that changes from pixel to pixel, and widths that a lens of f/2 has.
        net.depth_head.last.weight[1] *= 5000
        net.depth_head.last.weight[0] *= 5
    found = predict(net, image, tiling=Tiling(tile=64, overlap=32), lens=lens)
    assert found.depth_m is not None
    assert found.coc_px is not None
    near = found.depth_m < 2
    assert 0.05 < near.mean() < 0.95
    shown = np.abs(coc_diameter_px(found.depth_m, lens, width_px=160))
    # A depth is no nearer than 1/100 of the focus distance, and no farther than where blur still tells.
    as_wide = np.isclose(shown[near], np.minimum(found.coc_px[near], shown.max()), rtol=1e-3, atol=1e-3)
    assert as_wide.mean() > 0.95
    assert (shown[~near] <= found.coc_px[~near] + 1e-3).all()


@pytest.mark.parametrize("told", [True, False])
def test_the_side_of_the_focus_is_read_from_a_large_picture_at_the_size_that_was_learned(told: bool) -> None:
    config = dataclasses.replace(
        variant("tiny"), predict="coc+side", lens_input=True, lens_hidden=0.3, height_input=True, heads=("depth",),
        init="kaiming", frame_hw=(48, 64),
    )  # fmt: skip
    lens = Lens(focal_length_mm=35, f_number=2, focus_distance_m=2, sensor_width_mm=36)
    net = build_model(config, generator=torch.Generator().manual_seed(4)).eval()
    image = scene(144, 192).astype(np.float32) / 255
    with torch.no_grad():
        net.depth_head.last.weight[1] *= 1000
    found = predict(net, image, lens=lens, told=told)

    logits = []
    for height, width in ((48, 64), (72, 96)):
        smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        camera = camera_of(lens.resized((144, 192), (height, width)), (height, width))[None]
        pixels = torch.from_numpy(smaller).permute(2, 0, 1)[None]
        with torch.inference_mode():
            logit = run_model(net, pixels, camera, told=told).side_logit
        logits.append(cv2.resize(logit[0, 0].numpy(), (192, 144), interpolation=cv2.INTER_LINEAR))
    camera = camera_of(lens, (144, 192))[None]
    width_px, logit = (torch.from_numpy(a)[None, None] for a in (found.coc_px, np.mean(logits, axis=0)))
    wanted = read_sides(width_px, None, logit, camera, torch.tensor([told])).depth_m[0, 0].numpy()
    assert 0.05 < (wanted < 2).mean() < 0.95
    np.testing.assert_allclose(found.depth_m, wanted, rtol=1e-3)


def test_sizes_at_which_a_layout_is_read() -> None:
    assert layout_scales((240, 320), (240, 320)) == (1,)
    assert layout_scales((270, 360), (240, 320)) == (1,)
    assert layout_scales((200, 200), (240, 320)) == (1,)
    assert layout_scales((960, 1280), None) == (1,)
    assert layout_scales((960, 1280), (240, 320)) == pytest.approx((0.25, 0.375))
    # On its side, and hardly larger than the second size.
    assert layout_scales((416, 312), (240, 320)) == pytest.approx((1 / 1.3, 1))


def test_a_tiny_overlap_shows_why_there_is_one(net: TwoHeadedNet) -> None:
    image = scene(96, 1900)
    good = predict(net, image)
    cut = predict(net, image, tiling=Tiling(tile=512, overlap=0))
    jumps = np.abs(np.diff(cut.depth_m - good.depth_m, axis=1)).max(axis=0)
    assert min(abs(int(np.argmax(jumps)) - seam) for seam in (511, 1023, 1535)) <= 2


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "grey"])
def test_the_restored_picture_has_shape_and_type_of_the_input(run: Path, net: TwoHeadedNet, kind: str) -> None:
    image = scene(40, 72)
    pictures = {
        "uint8": image,
        "uint16": image.astype(np.uint16) * 257,
        "float32": image.astype(np.float32) / 255,
        "grey": image[..., 0],
    }
    found = predict(net, pictures[kind])
    assert (found.aif.shape, found.aif.dtype) == (pictures[kind].shape, pictures[kind].dtype)
    assert (found.depth_m.shape, found.depth_m.dtype) == ((40, 72), np.float32)
    assert found.depth_m.min() >= 1e-3


def test_one_pixel_is_enough_from_python(net: TwoHeadedNet) -> None:
    assert predict(net, np.zeros((1, 1, 3), np.uint8)).depth_m.shape == (1, 1)


def test_what_is_no_picture_is_refused_by_name(net: TwoHeadedNet) -> None:
    for image, pattern in (
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.full((4, 4), 7.0), "spans 7"),
        (np.full((4, 4), np.nan), "spans nan"),
    ):
        with pytest.raises(ConfigError, match=pattern):
            predict(net, image)
    with pytest.raises(ConfigError, match="training mode"):
        predict(TwoHeadedNet(variant("tiny")), np.zeros((4, 4, 3), np.uint8))
    broken = TwoHeadedNet(variant("tiny")).eval()
    torch.nn.init.constant_(broken.depth_head.last.weight, float("nan"))
    with pytest.raises(NonFiniteError, match="checkpoint is damaged"):
        predict(broken, scene(40, 40))


def test_every_orientation_comes_upright(tmp_path: Path) -> None:
    upright = scene(40, 56)
    back = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
            6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1), 8: np.rot90(upright, -1)}  # fmt: skip
    for orientation, stored in back.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for ending in (".png", ".tif"):
            path = tmp_path / f"{orientation}{ending}"
            Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
            assert np.array_equal(read_picture(path).pixels, upright), (orientation, ending)
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.jpg", exif=exif, quality=95)
        assert np.abs(read_picture(tmp_path / "a.jpg").pixels.astype(int) - upright).mean() < 5
    deep = upright.astype(np.uint16) * 257
    for orientation, stored in back.items():
        # A 16-bit picture with an orientation, which neither library writes: the tag is put into OpenCV's file.
        _, plain = cv2.imencode(".png", np.ascontiguousarray(stored[..., ::-1].astype(np.uint16) * 257))
        exif = Image.Exif()
        exif[0x0112] = orientation
        stream = io.BytesIO()
        Image.new("L", (1, 1)).save(stream, "PNG", exif=exif)
        chunk = stream.getvalue()
        at = chunk.index(b"eXIf") - 4
        length = int.from_bytes(chunk[at : at + 4], "big") + 12
        data = plain.tobytes()
        (tmp_path / "deep.png").write_bytes(data[:33] + chunk[at : at + length] + data[33:])
        assert np.array_equal(read_picture(tmp_path / "deep.png").pixels, deep), orientation


def test_sixteen_bit_grey_alpha_cmyk_and_palette_are_read(tmp_path: Path) -> None:
    image, deep = scene(40, 56), scene(40, 56, np.uint16)
    for name in ("deep.png", "deep.tif"):
        cv2.imwrite(str(tmp_path / name), deep[..., ::-1])
        assert np.array_equal(read_picture(tmp_path / name).pixels, deep)
        cv2.imwrite(str(tmp_path / name), deep[..., 0])
        read = read_picture(tmp_path / name)
        assert read.grey
        assert np.array_equal(read.pixels[..., 2], deep[..., 0])
        cv2.imwrite(str(tmp_path / name), np.dstack([deep[..., ::-1], deep[..., 1]]))
        read = read_picture(tmp_path / name)
        assert np.array_equal(read.alpha, deep[..., 1])
        assert np.array_equal(read.pixels, deep)
    Image.fromarray(np.dstack([image, image[..., 0]])).save(tmp_path / "alpha.png")
    read = read_picture(tmp_path / "alpha.png")
    assert np.array_equal(read.alpha, image[..., 0])
    assert read.notes == ("alpha kept",)
    Image.fromarray(image).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    read = read_picture(tmp_path / "cmyk.jpg")
    assert read.notes == ("CMYK converted to RGB",)
    assert np.abs(read.pixels.astype(int) - image).mean() < 6
    Image.fromarray(image).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    assert np.abs(read_picture(tmp_path / "palette.png").pixels.astype(int) - image).mean() < 10
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.jpg")
    assert read_picture(tmp_path / "grey.jpg").grey


def test_files_become_files_of_the_same_depth(run: Path, tmp_path: Path) -> None:
    deep = scene(40, 56, np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep[..., ::-1])
    Image.fromarray(np.dstack([scene(40, 56)[..., 0], np.full((40, 56), 9, np.uint8)]), "LA").save(tmp_path / "la.png")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(scene(40, 56)).save(tmp_path / "a.jpg", icc_profile=profile)
    result = dfd_predict(tmp_path, "--checkpoint", run, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        f"{name}{ending}" for name in ("a", "deep", "la") for ending in ENDINGS
    )
    restored = cv2.imread(str(tmp_path / "out" / "deep_restored.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert restored.dtype == np.uint16
    assert np.abs(restored.astype(int) - deep).max() < 40
    depth_m = np.load(tmp_path / "out" / "deep_depth.npy")
    depth_mm = cv2.imread(str(tmp_path / "out" / "deep_depth.png"), cv2.IMREAD_UNCHANGED)
    assert (depth_m.dtype, depth_mm.dtype) == (np.float32, np.uint16)
    assert np.abs(depth_mm - depth_m * 1000.0).max() <= 0.51 or depth_m.min() < 0.0011
    with Image.open(tmp_path / "out" / "a_restored.png") as image:
        assert image.info["icc_profile"] == profile
        image.load()
    assert read_picture(tmp_path / "out" / "la_restored.png").alpha.max() == 9


def test_bad_pictures_get_one_line_each_and_the_others_are_done(run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("this is no picture")
    (tmp_path / "zero.png").touch()
    Image.new("RGB", (1, 1)).save(tmp_path / "pixel.png")
    Image.fromarray(scene(40, 56)).save(tmp_path / "good.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:900])
    cv2.imwrite(str(tmp_path / "colour.tif"), scene(40, 56).astype(np.float32) / 255)
    cv2.imwrite(str(tmp_path / "float.tif"), scene(40, 56)[..., 0].astype(np.float32) / 255)
    result = dfd_predict(
        tmp_path, tmp_path / "no*.jpg", "--checkpoint", run, "--out", tmp_path / "o", "--device", "cpu"
    )
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    for name, pattern in (
        ("text.jpg", "cannot be decoded as a picture"), ("zero.png", "is empty"), ("pixel.png", "1x1 pixels"),
        ("cut.jpg", "truncated"), ("float.tif", "8 or 16 bit"), ("colour.tif", "not a readable"),
        (r"no\*.jpg", "not found"),
    ):  # fmt: skip
        assert len([line for line in lines if re.search(f"Error: .*{name}.*{pattern}", line)]) == 1, (name, lines)
    assert len(lines) == 7
    assert "good.jpg: 56x40, depth" in result.stdout
    assert (tmp_path / "o" / "good_restored.png").exists()


def test_what_stops_everything_is_one_line_and_exit_code_2(run: Path, tmp_path: Path) -> None:
    Image.fromarray(scene(40, 56)).save(tmp_path / "a.png")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    checkpoint = next((run / "checkpoints").glob("*.pt"))
    (tmp_path / "file").touch()
    # A checkpoint of another model: one that a single picture is not enough for.
    saved = load_checkpoint(run)
    song = dataclasses.replace(saved.config, model=variant("song-tiny"))
    weights = build_model(song.model).state_dict()
    pairs = save_checkpoint(tmp_path / "song", dataclasses.replace(saved, config=song, weights=weights, averaged=None))
    for arguments, pattern in (
        (("--checkpoint", tmp_path / "other.pt", "--out", tmp_path / "o"), "none of dfd-train"),
        (("--checkpoint", tmp_path / "a.png", "--out", tmp_path / "o"), "cannot be read"),
        (("--checkpoint", checkpoint, "--out", tmp_path / "file"), "cannot make the folder"),
        (("--checkpoint", checkpoint, "--out", tmp_path / "o", "--refocus", "1mm"), "must exceed the focal length"),
        (("--checkpoint", checkpoint, "--out", tmp_path / "o", "--tile", "100"), "multiple of 32"),
        (("--checkpoint", pairs, "--out", tmp_path / "o"), "compares 2 pictures of a scene focused differently"),
    ):
        result = dfd_predict(tmp_path / "a.png", *arguments)
        assert result.exit_code == 2, result.output
        assert len(result.stderr.splitlines()) == 1
        assert re.search(pattern, result.stderr), result.stderr
        assert not (tmp_path / "o").exists()


def test_refocusing_blurs_what_is_off_the_distance_only(net: TwoHeadedNet) -> None:
    rng = np.random.default_rng(0)
    aif = (rng.integers(0, 2, (96, 128, 3)) * 255).astype(np.uint8).repeat(1, axis=0)
    depth = np.full((96, 128), 1.5, np.float32)
    depth[:, 64:] = 6.0
    lens = Lens(focus_distance_m=1.5, f_number=2, focal_length_mm=50, sensor_width_mm=36)
    near, far = refocus(aif, depth, lens), refocus(aif, depth, lens.at_focus(6.0))
    assert np.abs(near[:, :50].astype(int) - aif[:, :50]).max() <= 1
    assert np.abs(far[:, 80:].astype(int) - aif[:, 80:]).max() <= 1
    assert near[:, 80:].std() < 0.8 * aif[:, 80:].std()
    assert far[:, :50].std() < 0.8 * aif[:, :50].std()
    deep = refocus(aif.astype(np.uint16) * 257, depth, lens)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257.0 - near).max() < 1


def test_focus_moves_evenly_in_the_inverse_of_distance() -> None:
    steps = focus_steps((1.0, 4.0, 2.0), between=3)
    assert steps[0], steps[3] == (1.0, 4.0)
    assert np.allclose(np.diff(1 / np.array(steps[:4])), -0.25)
    assert steps[-1] == pytest.approx(2.0)


@pytest.mark.parametrize("film", ["gif", "mp4"])
def test_several_distances_make_a_film(run: Path, tmp_path: Path, film: str) -> None:
    Image.fromarray(scene(40, 56)).save(tmp_path / "a.png")
    config = PredictConfig(
        images=(str(tmp_path / "a.png"),), checkpoint=str(run), out=str(tmp_path / "o"), device="cpu", film=film,
        refocus_m=(1.0, 3.0), lens=Lens(focus_distance_m=9, f_number=2, focal_length_mm=50, sensor_width_mm=36),
    )  # fmt: skip
    (outcome,) = predict_files(config)
    assert outcome.error is None
    names = {path.name for path in outcome.files}
    assert names == {f"a{e}" for e in (*ENDINGS, "_refocus_1m.png", "_refocus_3m.png", f"_rack.{film}")}
    if film == "gif":
        with Image.open(tmp_path / "o" / "a_rack.gif") as image:
            assert image.size == (56, 40)
    else:
        capture = cv2.VideoCapture(str(tmp_path / "o" / "a_rack.mp4"))
        assert capture.read()[1].shape == (40, 56, 3)
        capture.release()


def test_a_film_goes_there_and_back(net: TwoHeadedNet) -> None:
    lens = Lens(focus_distance_m=9, f_number=2, focal_length_mm=50, sensor_width_mm=36)
    frames = rack_focus(scene(40, 56), np.linspace(1, 4, 56, dtype=np.float32)[None].repeat(40, 0), lens, (1.0, 2.0))
    assert len(frames) == 20
    assert np.array_equal(frames[1], frames[-1])
    with Image.open(io.BytesIO(gif_bytes(frames))) as image:
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert len(shown) == 20
    assert np.abs(shown[10].astype(int) - frames[10]).mean() < 16


def test_names_of_results_do_not_collide_and_patterns_are_expanded(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.jpg", "sub/a.jpg", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files, problems = find_pictures([str(tmp_path), str(tmp_path / "*.jpg"), str(tmp_path / "sub")])
    assert [p.relative_to(tmp_path).as_posix() for p in files] == ["a.jpg", "a.png", "b.jpg", "sub/a.jpg"]
    assert problems == []
    assert output_names(files) == ["a_jpg", "a_png", "b", "a_jpg_2"]
    (tmp_path / "empty").mkdir()
    assert "folder without pictures" in find_pictures([str(tmp_path / "empty")])[1][0]


def test_a_network_of_one_head_writes_what_it_has(run: Path, tmp_path: Path, store: Path) -> None:
    out = tmp_path / "run"
    config = recipe_config(
        "fast", shards=store, out=out, model="tiny", heads="depth", size="36x48", epochs=1, batch_size=10, device="cpu"
    )
    train(config, console=Console(quiet=True))
    Image.fromarray(scene(40, 56)).save(tmp_path / "a.png")
    result = dfd_predict(tmp_path / "a.png", "--checkpoint", out, "--out", tmp_path / "o", "--device", "cpu")
    assert result.exit_code == 0
    assert {p.name for p in (tmp_path / "o").iterdir()} == {f"a{e}" for e in ENDINGS if "restored" not in e}
    result = dfd_predict(tmp_path / "a.png", "--checkpoint", out, "--out", tmp_path / "o", "--refocus", "2m")
    assert result.exit_code == 2
    assert "refocusing needs both heads" in result.stderr


def test_a_picture_error_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"gone\.jpg cannot be read"):
        read_picture(tmp_path / "gone.jpg")
