"""Photographs of any size and blur: the scale they are worked at, and that what is sharp stays."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from dfd_cli import predict as predict_command
from dfd_cli.support.parameters import FOCUS, FocusPoints
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational
from rich.console import Console
from scipy.spatial import cKDTree

from defocus_sim.errors import UnitError
from defocus_sim.lens import Lens
from dfd_train.config.model import variant
from dfd_train.config.train import recipe_config
from dfd_train.errors import ConfigError
from dfd_train.model.build import build_model
from dfd_train.model.camera_nets import AnwarNet
from dfd_train.model.two_headed import Output, TwoHeadedNet
from dfd_train.optics.camera import COC_PX, FOCUS_M
from dfd_train.prediction.edge_blur import local_sigma_px, measure_edges
from dfd_train.prediction.photograph import LEARNED_SIGMA_PX, choose_scale, predict_photograph
from dfd_train.prediction.point_cloud import MOST_POINTS, ply_bytes
from dfd_train.prediction.predict import predict
from dfd_train.prediction.refocus import refocus
from dfd_train.prediction.results import as_srgb
from dfd_train.runs.checkpoint import load_checkpoint, save_checkpoint
from dfd_train.training.train import train

REAL_DATA = os.environ.get("DFD_REAL_DATA")
needs_real_data = pytest.mark.skipif(REAL_DATA is None, reason="DFD_REAL_DATA names no folder of real data")


class Brightens(TwoHeadedNet):
    """Adds a tenth to every value: where its work is used is plain to see."""

    def forward(self, image: torch.Tensor, heads: object = None) -> Output:
        return Output(torch.full_like(image[:, :1], 2.0), image + 0.1)


@pytest.fixture(scope="module")
def brightens() -> TwoHeadedNet:
    return Brightens(variant("tiny")).eval()


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    config = recipe_config("fast", shards=store, out=out, model="tiny", size="36x48", epochs=1, batch_size=10, lr=1e-9)
    train(config, console=Console(quiet=True))
    saved = load_checkpoint(out)
    net = build_model(saved.config.model)
    net.load_state_dict(saved.weights)
    with torch.no_grad():
        # What reaches the last convolution is positive: so is the depth then, and some metres large.
        net.depth_head.last.weight.abs_().mul_(40)
    return save_checkpoint(
        tmp_path_factory.mktemp("runs") / "deep", replace(saved, weights=net.state_dict(), averaged=None)
    )


class Sharpens(TwoHeadedNet):
    """Sharpens without restraint."""

    def forward(self, image: torch.Tensor, heads: object = None) -> Output:
        soft = torch.nn.functional.avg_pool2d(image, 5, 1, 2, count_include_pad=False)
        return Output(torch.full_like(image[:, :1], 2.0), image + 1.5 * (image - soft))


def shapes(height: int, width: int) -> np.ndarray:
    """Overlapping discs of plain colours with sharp, antialiased edges: (H, W, 3) uint8."""
    rng = np.random.default_rng(5)
    image = np.full((height * 2, width * 2, 3), 0.4)
    for _ in range(90):
        centre = (int(rng.integers(width * 2)), int(rng.integers(height * 2)))
        cv2.circle(image, centre, int(rng.integers(8, height // 4)), [float(v) for v in rng.uniform(0.05, 0.85, 3)], -1)
    return (cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) * 255).round().astype(np.uint8)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((first.astype(float) - second) ** 2), 1e-9)))


@pytest.mark.parametrize("sigma", [2.0, 4.0, 6.0])
def test_blur_measured_at_the_edges_is_the_blur_that_was_applied(sigma: float) -> None:
    edges = measure_edges(blurred(shapes(400, 500), sigma).astype(np.float32) / 255)
    assert np.median(edges.sigma_px) == pytest.approx(sigma, rel=0.15)
    assert measure_edges(np.full((40, 50), 0.5, np.float32)).sigma_px.size == 0


def test_pictures_are_worked_at_the_scale_at_which_their_blur_is_what_was_learned() -> None:
    image = shapes(900, 1200)
    assert choose_scale(image) == 1
    for sigma in (8.0, 20.0):
        assert choose_scale(blurred(image, sigma)) == pytest.approx(LEARNED_SIGMA_PX / sigma, rel=0.35)
    # Never more pixels than a laptop works through in a minute.
    assert choose_scale(cv2.resize(image, (4800, 3600))) ** 2 * 4800 * 3600 == pytest.approx(4e6, rel=0.01)
    assert choose_scale(np.zeros((3000, 4000, 3), np.uint8)) > 0.5


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float", "grey"])
def test_a_sharp_picture_comes_back_as_it_is_and_a_blurred_one_is_restored(brightens: TwoHeadedNet, kind: str) -> None:
    image = shapes(300, 400)
    if kind == "grey":
        image = image[..., 1]
    of = {"uint16": lambda a: a.astype(np.uint16) * 257, "float": lambda a: a.astype(np.float32) / 255}
    to = {"uint16": lambda a: a / 257.0, "float": lambda a: a * 255.0}
    give, take = of.get(kind, lambda a: a), to.get(kind, lambda a: a)
    sharp = predict_photograph(brightens, give(image)).found.aif
    assert sharp.dtype == give(image).dtype
    assert psnr(take(sharp), image) > 42
    soft = blurred(image, 3)
    restored = predict_photograph(brightens, give(soft))
    assert restored.scale == 1
    assert (take(restored.found.aif) - soft.astype(float)).mean() == pytest.approx(25.5, abs=2)


def test_only_the_blurred_half_is_restored(brightens: TwoHeadedNet) -> None:
    image = shapes(300, 400)
    image[:, 200:] = blurred(image, 4)[:, 200:]
    change = predict_photograph(brightens, image).found.aif.astype(float) - image
    assert change[:, :150].mean() < 1
    assert change[:, 280:].mean() > 18


def test_a_large_blurred_picture_is_restored_at_its_own_size(brightens: TwoHeadedNet) -> None:
    image = blurred(shapes(900, 1200), 16)
    made = predict_photograph(brightens, image)
    assert made.scale < 0.5
    assert made.found.aif.shape == image.shape
    assert made.found.depth_m.shape == image.shape[:2]
    assert (made.found.aif - image.astype(float)).mean() == pytest.approx(25.5, abs=2)
    # Its own pixels, not enlarged ones: grain stays.
    grain = np.random.default_rng(0).integers(-6, 7, image.shape)
    grainy = np.clip(image.astype(int) + grain, 0, 255).astype(np.uint8)
    kept = predict_photograph(brightens, grainy, scale=0.25).found.aif - image.astype(float)
    inside = (grainy > 20) & (grainy < 200)
    assert np.corrcoef(kept[inside], grain[inside])[0, 1] > 0.9


def test_the_scale_that_is_asked_for_is_the_one_that_is_used(brightens: TwoHeadedNet) -> None:
    image = shapes(200, 300)
    assert predict_photograph(brightens, image, scale=0.5).scale == 0.5
    assert predict_photograph(brightens, image[:40, :40], scale=0.1).scale == 0.8
    for scale in (0.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match="scale="):
            predict_photograph(brightens, image, scale=scale)


def test_a_network_that_is_told_the_lens_gets_that_of_the_picture_as_worked() -> None:
    net = build_model(variant("gur-tiny")).eval()
    seen = []
    whole = net.cameras
    net.cameras = lambda image, camera: seen.append((image.shape[-1], camera)) or whole(image, camera)
    image = shapes(200, 300)
    lenses = {
        "width": Lens(focus_distance_m=1.5, f_number=2, focal_length_mm=50, sensor_width_mm=36),
        "pitch": Lens(focus_distance_m=1.5, f_number=2, focal_length_mm=50, pixel_pitch_um=120),
    }
    for lens in lenses.values():
        for scale in (1.0, 0.5):
            seen.clear()
            predict_photograph(net, image, lens=lens, scale=scale)
            ((width, camera),) = seen
            assert width == 300 * scale
            assert float(camera[0, FOCUS_M]) == 1.5
            # f/2 of 50 mm at 1.5 m: 25 mm * 1/(1.5 - 0.05) * 50 mm / 1.5... in px of the picture as worked.
            expected = 0.025 * (0.05 * 1.5 / 1.45) / 1.5 / (0.036 / 300) * scale
            assert float(camera[0, COC_PX]) == pytest.approx(expected, rel=1e-5)
    near = predict(net, image, lens=lenses["width"]).depth_m
    far = predict(net, image, lens=lenses["width"].at_focus(3.0)).depth_m
    assert far == pytest.approx(near * 2, rel=1e-4)


class SeesDepth(AnwarNet):
    """Told the lens; the left half at the focus distance, the right four times as far, everything a tenth brighter."""

    far_share = 0.5

    def forward(self, image: torch.Tensor, camera: torch.Tensor | None = None) -> Output:
        depth = self.cameras(image, camera)[:, FOCUS_M, None, None, None].expand(-1, 1, *image.shape[2:]).clone()
        depth[..., round((1 - self.far_share) * image.shape[3]) :] *= 4
        return Output(depth, image + 0.1)


def test_a_network_that_is_told_the_lens_says_itself_what_is_sharp() -> None:
    """Whatever the edges look like: here all are blurred."""
    net = SeesDepth(variant("anwar-tiny")).eval()
    image = blurred(shapes(200, 400), 3)
    lens = Lens(focus_distance_m=2, f_number=2, focal_length_mm=50, sensor_width_mm=36)
    change = predict_photograph(net, image, lens=lens, scale=1).found.aif.astype(float) - image
    assert np.abs(change[:, :195]).max() == 0
    assert change[:, 205:].mean() == pytest.approx(25.5, abs=1)
    closed = Lens(focus_distance_m=2, f_number=200, focal_length_mm=50, sensor_width_mm=36)
    assert not (predict_photograph(net, image, lens=closed, scale=1).found.aif != image).any()


def test_of_a_picture_in_focus_but_for_a_corner_no_more_is_changed_than_leaves_it_at_43_db() -> None:
    """In focus a network takes flat surfaces here and there for blurred: then what it changes is harm."""
    net = SeesDepth(variant("anwar-tiny")).eval()
    image = blurred(shapes(200, 400), 3)
    lens = Lens(focus_distance_m=2, f_number=2, focal_length_mm=50, sensor_width_mm=36)
    for far_share, changed in ((0.5, 1.0), (0.04, 10 ** (-43 / 20) / (0.1 * 0.04**0.5)), (0.0025, 1.0)):
        net.far_share = far_share
        made = predict_photograph(net, image, lens=lens, scale=1)
        assert made.changed_share == pytest.approx(changed, abs=0.01)
        change = made.found.aif.astype(float) - image
        assert change[:, 400 - round(far_share * 400) :].mean() == pytest.approx(25.5 * changed, abs=1)
        assert far_share == 0.5 or psnr(made.found.aif, image) > 42.5


@pytest.mark.parametrize(("share", "said"), [(0.347, True), (1.0, False)])
def test_that_little_was_changed_is_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, said: bool
) -> None:
    def restrained(*arguments: object, **settings: object) -> object:
        return replace(predict_photograph(*arguments, **settings), changed_share=share)

    monkeypatch.setattr("dfd_train.prediction.files.predict_photograph", restrained)
    out = tmp_path / "o"
    result = dfd_predict(photograph(tmp_path / "a.png"), "--checkpoint", run, "--out", out, "--page")
    assert result.exit_code == 0, result.output
    assert json.loads((out / "a.json").read_text())["changed_share"] == share
    for text in (result.stdout, (out / "a.html").read_text()):
        assert ("little blur seen: 35% of the change made" in " ".join(text.split())) == said


@needs_real_data
def test_real_photographs_in_focus_keep_42_db_whatever_the_network_does_to_them() -> None:
    """The f/8 pictures of the real pairs, reduced by two, are sharp by any measure."""
    net = Sharpens(variant("tiny")).eval()
    kept, alone = [], []
    for path in sorted((Path(REAL_DATA) / "real_pairs" / "f8").glob("*.jpg"))[::4]:
        sharp = cv2.resize(cv2.imread(str(path)), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        kept.append(psnr(predict_photograph(net, sharp).found.aif, sharp))
        alone.append(psnr(predict(net, sharp).aif, sharp))
    assert len(kept) == 21
    assert np.median(kept) > 42
    assert np.median(alone) < 30


def test_a_local_blur_follows_the_edges_near_it() -> None:
    image = shapes(300, 400).astype(np.float32) / 255
    image[:, 200:] = blurred(image, 4)[:, 200:]
    sigma = local_sigma_px(image)
    assert np.median(sigma[:, :160]) < 1
    assert np.median(sigma[:, 230:]) == pytest.approx(4, abs=0.8)
    assert not local_sigma_px(np.full((60, 60, 3), 0.3, np.float32)).any()


def read_ply(content: bytes) -> np.ndarray:
    header, _, body = content.partition(b"end_header\n")
    names = re.findall(r"property (float|uchar) (\w+)", header.decode())
    points = np.frombuffer(body, [(name, "<f4" if kind == "float" else "u1") for kind, name in names])
    assert len(points) == int(re.search(r"element vertex (\d+)", header.decode()).group(1))
    return points


def test_points_of_a_cloud_project_back_onto_their_pixels() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    depth = rng.uniform(0.5, 5, (30, 40)).astype(np.float32)
    depth[0, 0] = 70.0
    points = read_ply(ply_bytes(picture, depth, 50.0))
    assert len(points) == 30 * 40 - 1
    columns = points["x"] / -points["z"] * 50 + 20 - 0.5
    rows = -points["y"] / -points["z"] * 50 + 15 - 0.5
    pixels = np.stack([rows, columns], axis=1).round().astype(int)
    assert np.abs(np.stack([rows, columns], axis=1) - pixels).max() < 1e-4
    assert np.array_equal(picture[pixels[:, 0], pixels[:, 1], 0], points["red"])
    assert np.allclose(depth[pixels[:, 0], pixels[:, 1]], -points["z"])
    # Distances between points are distances in metres.
    gap = cKDTree(np.stack([points[a] for a in "xyz"], axis=1)).query([[0, 0, 0]])[0]
    assert gap >= 0.5
    assert len(read_ply(ply_bytes(np.zeros((2000, 2500, 3), np.uint8), np.ones((2000, 2500)), 900))) <= MOST_POINTS


def dfd_predict(*arguments: object) -> Result:
    return CliRunner().invoke(predict_command.main, list(map(str, arguments)))


def photograph(path: Path, **tags: object) -> Path:
    numbers = {"f": 0x829D, "focal": 0x920A, "eq": 0xA405, "distance": 0x9206}
    exif = Image.Exif()
    for name, value in tags.items():
        exif.get_ifd(0x8769)[numbers[name]] = value
    Image.fromarray(blurred(shapes(120, 160), 2)).save(path, exif=exif, quality=95)
    return path


def test_one_command_writes_everything_and_says_what_it_knows(run: Path, tmp_path: Path) -> None:
    path = photograph(
        tmp_path / "a.jpg", f=IFDRational(18, 10), focal=IFDRational(57, 10), eq=26, distance=IFDRational(3, 2)
    )
    out = tmp_path / "o"
    result = dfd_predict(path, "--checkpoint", run, "--out", out, "--page", "--ply", "--refocus", "@40,60,1m")
    assert result.exit_code == 0, result.output
    names = {p.name for p in out.iterdir()}
    assert {
        "a.html",
        "a.ply",
        "a.json",
        "a_sheet.jpg",
        "a_refocus_at_40_60.png",
        "a_refocus_1m.png",
        "a_rack.gif",
    } < names
    assert "lens: read 26 mm on full frame, focal length 5.7 mm" in result.stdout
    assert "f/1.8, focus at 1.5 m" in result.stdout
    assert "a.html in a browser" in result.stdout
    record = json.loads((out / "a.json").read_text())
    assert record["photograph"]["lens"]["focus_distance_m"] == 1.5
    assert record["photograph"]["assumed"] == {}
    assert record["depth"]["unit"] == "m"
    assert {f"a{ending}" for ending in record["files"]} | {"a.json"} == names
    depth, restored = np.load(out / "a_depth.npy"), cv2.imread(str(out / "a_restored.png"))[..., ::-1]
    # Full frame with the view of a 26 mm lens, f/2, focused at the depth of that pixel.
    wide = 36 / np.hypot(4, 3) * 4 * np.hypot(36, 24) / 36
    lens = Lens(focus_distance_m=float(depth[60, 40]), f_number=2, focal_length_mm=26, sensor_width_mm=float(wide))
    made = refocus(np.ascontiguousarray(restored), depth, lens)
    assert psnr(cv2.imread(str(out / "a_refocus_at_40_60.png"))[..., ::-1], made) > 60
    assert len(read_ply((out / "a.ply").read_bytes())) == 120 * 160
    sheet = Image.open(io.BytesIO((out / "a_sheet.jpg").read_bytes()))
    assert sheet.width > 1200


def test_what_the_file_does_not_say_can_be_said_and_is_assumed_otherwise(run: Path, tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.png")
    arguments = (path, "--checkpoint", run, "--out", tmp_path / "o", "--no-page")
    result = dfd_predict(*arguments)
    assert result.exit_code == 0, result.output
    assert re.search(r"assumed focal length 36", result.stdout)
    record = json.loads((tmp_path / "o" / "a.json").read_text())["photograph"]
    assert set(record["assumed"]) == {"focal_length_mm", "sensor_width_mm", "f_number", "focus_distance_m"}
    assert any("--focus" in line for line in record["relative"])
    assert not (tmp_path / "o" / "a.html").exists()
    given = ("--focus", "1.2m", "--f-number", "1.8", "--focal-length", "6mm", "--sensor-width", "7mm")
    assert dfd_predict(*arguments, *given).exit_code == 0
    record = json.loads((tmp_path / "o" / "a.json").read_text())["photograph"]
    assert set(record["given"]) == {"focal_length_mm", "sensor_width_mm", "f_number", "focus_distance_m"}
    assert record["lens"]["f_number"] == 1.8
    assert record["relative"] == []
    assert dfd_predict(*arguments, "--lens", tmp_path / "o" / "a.json", "--focus", "3m").exit_code == 0
    again = json.loads((tmp_path / "o" / "a.json").read_text())["photograph"]
    assert again["lens"] == record["lens"] | {"focus_distance_m": 3.0}


def test_without_a_focus_distance_depth_of_a_network_that_is_told_the_lens_is_in_units_of_it(
    store: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    config = recipe_config(
        "fast", shards=store, out=out, model="gur-tiny", size="36x48", epochs=1, batch_size=10, device="cpu"
    )
    train(config, console=Console(quiet=True))
    path = photograph(tmp_path / "a.jpg", f=IFDRational(18, 10), focal=IFDRational(57, 10), eq=26)
    arguments = (path, "--checkpoint", out, "--out", tmp_path / "o", "--device", "cpu")
    result = dfd_predict(*arguments)
    assert "focus distances" in result.stdout
    assert "no focus distance: depth is in units of it" in result.stdout
    relative = np.load(tmp_path / "o" / "a_depth.npy")
    assert json.loads((tmp_path / "o" / "a.json").read_text())["depth"]["unit"] == "focus distances"
    assert "depth is in units" not in dfd_predict(*arguments, "--focus", "2m").stdout
    assert np.allclose(np.load(tmp_path / "o" / "a_depth.npy"), relative * 2, rtol=1e-5)


def test_what_cannot_be_done_is_one_line(run: Path, tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.jpg")
    common = ("--checkpoint", run, "--out", tmp_path / "o")
    for arguments, code, pattern in (
        ((path, *common, "--refocus", "@160,3"), 1, r"160x120 pixels: it has no pixel 160,3"),
        ((path, *common, "--refocus", "@160"), 2, "write @X,Y"),
        ((path, *common, "--scale", "2"), 2, "--scale 2"),
        ((path, *common, "--lens", "leica"), 2, "neither a file nor one of paper"),
        ((path, *common, "--lens", "syndof"), 1, "solved for each picture"),
        ((path, *common, "--focus", "1mm"), 1, "must exceed the focal length"),
    ):
        result = dfd_predict(*arguments)
        assert result.exit_code == code, result.output
        assert len(result.stderr.splitlines()) == 1
        assert re.search(pattern, result.stderr), result.stderr


def test_points_to_focus_on_are_distances_and_pixels() -> None:
    read = FOCUS.parse
    assert read("1m,2.5m") == FocusPoints((1.0, 2.5), ())
    assert read("@640,360") == FocusPoints((), ((640, 360),))
    assert read("2m, @640,360 ,@1,2,30cm") == FocusPoints((2.0, 0.3), ((640, 360), (1, 2)))
    for text in ("@640", "@a,b", "", "@1,2,@3"):
        with pytest.raises(UnitError):
            read(text)


def test_a_wide_gamut_picture_is_shown_in_the_colours_that_it_means() -> None:
    picture = np.full((4, 4, 3), (200, 40, 40), np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.abs(as_srgb(picture, srgb).astype(int) - picture).max() <= 1
    assert np.array_equal(as_srgb(picture, None), picture)
    assert np.array_equal(as_srgb(picture, b"no profile"), picture)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(as_srgb(picture, lab), picture)
