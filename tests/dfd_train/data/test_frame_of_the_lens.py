"""Whatever a frame went through after its blur, its lens is known in the pixels that it has now."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch

from defocus_sim.convert.merge import merge
from defocus_sim.convert.plan import ConversionSettings
from defocus_sim.convert.run import convert
from defocus_sim.datasets.base import RgbdFrame, SampleRef
from defocus_sim.errors import ShardError
from defocus_sim.lens import Lens
from defocus_sim.shards.manifest import digest
from defocus_sim.shards.store import open_store
from defocus_sim.simulate import defocus as defocus_array
from dfd_train.config.geometry import Geometry
from dfd_train.config.lens_range import LensRange
from dfd_train.data.lens_draws import draw_lenses, photographed
from dfd_train.data.store_facts import differences, store_facts
from dfd_train.data.stream import ShardDataset
from dfd_train.data.transforms import Frames, evaluation_frames, training_frames
from dfd_train.optics.camera import aspect, largest_sigma_px, sigma_px
from dfd_train.optics.deconvolution import deconvolve
from dfd_train.optics.defocus import defocus
from dfd_train.optics.reblur import reblur

BLURRED_HW = (480, 640)
CPU = torch.device("cpu")
LENSES = {
    # Apertures so wide that a quarter of the blur is still some pixels.
    "kinect": Lens.preset("kinect", aperture_mm=120.0),
    "by its sensor": Lens.preset("paper", aperture_mm=60.0),
    "every length in px": Lens.preset(
        "paper", aperture_mm=120.0, pixel_pitch_um=60.0, max_coc_px=24.0, sharp_below_px=2.0, focus_blur_px=4.0
    ),
}


@dataclass(frozen=True)
class Rooms:
    """Textured slanted walls with a step, of one or of two sizes; the step and the texture grow with the frame."""

    sizes: tuple[tuple[int, int], ...] = (BLURRED_HW,)
    kind: ClassVar[str] = "rooms"

    def samples(self) -> tuple[SampleRef, ...]:
        return tuple(SampleRef(name=f"{k}", scene=f"{k}", split="train") for k in range(len(self.sizes)))

    def skipped(self) -> tuple[()]:
        return ()

    notes = skipped

    def frame_hw(self) -> tuple[int, int]:
        return self.sizes[0]

    def provenance(self) -> dict[str, Any]:
        return {"kind": self.kind, "sizes": [list(hw) for hw in self.sizes]}

    @contextmanager
    def open(self):  # type: ignore[no-untyped-def]
        yield self

    def read(self, index: int) -> RgbdFrame:
        height, width = self.sizes[index]
        rng = np.random.default_rng(index)
        # Detail of a pixel or two after a reduction to a quarter.
        coarse = rng.integers(0, 256, (80, 100, 3), dtype=np.uint8)
        aif = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        y, x = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
        depth = 1.2 + 2.5 * x + 1.5 * y
        depth[(x > 0.55) & (y < 0.6)] = 5.5
        return RgbdFrame(aif, depth.astype(np.float32))


def stored(path: Path, lens: Lens, size_hw: tuple[int, int] | None, **source: Any) -> ShardDataset:
    convert(ConversionSettings(source=Rooms(**source), lens=lens, size_hw=size_hw), path)
    return ShardDataset(path, "train")


def psnr_db(first: torch.Tensor, second: torch.Tensor) -> float:
    return -10 * float(torch.log10((first - second).square().mean()))


def reblurred(frames: Frames, cameras: torch.Tensor) -> torch.Tensor:
    return defocus(frames.aif, frames.depth_m, cameras)


def without_the_frame(cameras: torch.Tensor) -> torch.Tensor:
    """The cameras of somebody who takes the stored frame for the one that was blurred."""
    wrong = cameras.clone()
    wrong[:, 5:7] = 1
    return wrong


@pytest.mark.parametrize("name", LENSES)
@pytest.mark.parametrize("size_hw", [(107, 140), (160, 160), (120, 80)])
def test_a_stored_picture_is_what_its_camera_makes_of_the_stored_sharp_one(
    tmp_path: Path, name: str, size_hw: tuple[int, int]
) -> None:
    dataset = stored(tmp_path / "rooms.zarr", LENSES[name], size_hw)
    batch = dataset.read(np.arange(1))
    frames, cameras = evaluation_frames(batch, None, CPU), dataset.cameras(batch.indices)
    # What is missing is due to samples of a blur of a pixel or less, and to depth edges that fall between pixels.
    least_db = 38 if size_hw[1] > 100 else 33
    assert psnr_db(frames.aif, frames.defocused) < least_db - 8
    assert psnr_db(reblurred(frames, cameras), frames.defocused) > least_db
    ladder = reblur(
        frames.aif, sigma_px(frames.depth_m, cameras), largest_px=largest_sigma_px(cameras), aspect=aspect(cameras)
    )
    assert psnr_db(ladder, frames.defocused) > least_db - 1
    assert psnr_db(reblurred(frames, without_the_frame(cameras)), frames.defocused) < least_db - 8


@pytest.mark.parametrize("geometry", [Geometry(size=(96, 96)), Geometry(size=None, crop=(64, 80)), Geometry(size=None)])
def test_so_it_is_after_the_resizes_crops_and_flips_of_training(tmp_path: Path, geometry: Geometry) -> None:
    dataset = stored(tmp_path / "rooms.zarr", LENSES["kinect"], (160, 200))
    batch = dataset.read(np.arange(1))
    frames = training_frames(batch, geometry, CPU, seed=1, epoch=3)
    cameras = dataset.cameras(batch.indices, geometry.size)
    # A window's border hides what was blurred into it.
    inner = (..., slice(16, -16), slice(16, -16)) if geometry.crop else (...,)
    assert psnr_db(frames.aif[inner], frames.defocused[inner]) < 31
    assert psnr_db(reblurred(frames, cameras)[inner], frames.defocused[inner]) > 37


def test_true_depth_sharpens_a_resized_picture_as_well_as_the_simulator_knows(tmp_path: Path) -> None:
    dataset = stored(tmp_path / "rooms.zarr", LENSES["kinect"], (107, 140))
    batch = dataset.read(np.arange(1))
    frames, cameras = evaluation_frames(batch, None, CPU), dataset.cameras(batch.indices)

    def restored(camera: torch.Tensor) -> float:
        sigma = sigma_px(frames.depth_m, camera)[0, 0]
        return psnr_db(deconvolve(frames.defocused[0], sigma, aspect=float(aspect(camera))), frames.aif[0])

    before = psnr_db(frames.defocused, frames.aif)
    assert restored(cameras) > before + 3
    assert restored(without_the_frame(cameras)) < before


def test_the_lens_of_a_sample_is_in_pixels_of_the_stored_frame(tmp_path: Path) -> None:
    dataset = stored(tmp_path / "rooms.zarr", LENSES["kinect"], (120, 160))
    sample, lens = dataset[0], dataset.lens(0)
    assert lens.focal_length_px == pytest.approx(519 / 4)
    assert sample["lens"]["sensor_distance_px"] == pytest.approx(519 / 4)
    assert dataset.split.blurred_hw(0) == BLURRED_HW
    assert dataset.split.blurred_lens(0) == LENSES["kinect"]
    seen = defocus_array(sample["aif"].numpy(), sample["depth_m"].numpy(), lens)
    difference = torch.from_numpy(seen.astype(np.float32)) - sample["defocused"].float()
    assert psnr_db(difference / 255, torch.zeros(1)) > 40


def test_frames_of_several_sizes_keep_their_own_also_in_a_merge(tmp_path: Path) -> None:
    sizes = ((480, 640), (240, 320), (300, 300))
    dataset = stored(tmp_path / "several.zarr", LENSES["every length in px"], (120, 160), sizes=sizes)
    stored(tmp_path / "one.zarr", LENSES["kinect"], (120, 160), sizes=((480, 600),))
    merge([tmp_path / "several.zarr", tmp_path / "one.zarr"], tmp_path / "both.zarr")
    both = ShardDataset(tmp_path / "both.zarr", "train")
    assert [both.split.blurred_hw(k) for k in range(4)] == [*sizes, (480, 600)]
    for data in (dataset, both):
        batch = data.read(np.arange(len(data)))
        frames, cameras = evaluation_frames(batch, None, CPU), data.cameras(batch.indices)
        made = reblurred(frames, cameras)
        assert min(psnr_db(a, b) for a, b in zip(made, frames.defocused, strict=True)) > 38
    # And through the settings that a store is told apart by.
    facts = [store_facts(d.store) for d in (dataset, both)]
    assert any("pixel pitch" in line or "lens to sensor" in line for line in differences(*facts))


def test_a_drawn_lens_blurs_a_squeezed_frame_as_it_would_have_blurred_the_frame(tmp_path: Path) -> None:
    ranges = LensRange(focus_m=(1.5, 1.5), f_number=(1.0, 1.0), focal_length_mm=(50, 50), most_coc_px=(1e3, 1e3))
    lens = Lens(focus_distance_m=1.5, focal_length_mm=50, f_number=1.0, sensor_width_mm=36)
    dataset = stored(tmp_path / "rooms.zarr", lens, (160, 120))
    batch = dataset.read(np.arange(1))
    for size in (None, (64, 120), (150, 60)):
        frames = evaluation_frames(batch, size, CPU)
        width = frames.aif.shape[-1]
        draws = draw_lenses(ranges, batch.indices, seed=0, epoch=0)
        made, cameras = photographed(frames, draws, width, dataset.aspects(batch.indices, size))
        assert psnr_db(frames.aif, frames.defocused) < 31
        assert psnr_db(made.defocused, frames.defocused) > 38
        assert psnr_db(defocus(frames.aif, frames.depth_m, cameras), made.defocused) > 40
        # What is in focus keeps every detail, though it went through another grid.
        sharp = photographed(frames._replace(depth_m=torch.full_like(frames.depth_m, 1.5)), draws, width,
                             dataset.aspects(batch.indices, size))[0]  # fmt: skip
        assert float((sharp.defocused - frames.aif).abs().max()) < 1.1 / 255


def older(path: Path, **changes: Any) -> ShardDataset:
    """The store at `path` as earlier versions wrote it, opened."""
    content = json.loads((path / "zarr.json").read_bytes())
    manifest = content["attributes"]["dfd"]
    del manifest["checksum"]
    for split in manifest["splits"].values():
        split.pop("blurred_hw", None)
    manifest |= changes
    manifest["checksum"] = digest(manifest)
    (path / "zarr.json").write_text(json.dumps(content))
    return ShardDataset(path, "train")


def test_an_older_store_is_read_rightly_where_its_sensor_or_its_source_tells(tmp_path: Path) -> None:
    new = stored(tmp_path / "sensor.zarr", LENSES["by its sensor"], (107, 140))
    before = new.cameras(np.arange(1))
    old = older(tmp_path / "sensor.zarr")
    assert "blurred_hw" not in open_store(tmp_path / "sensor.zarr").manifest.splits["train"].to_json()
    # Along x the width of the sensor decides, whatever the frame.
    depth = torch.linspace(0.8, 9, 60).reshape(1, 1, 6, 10)
    assert torch.allclose(sigma_px(depth, old.cameras(np.arange(1))), sigma_px(depth, before), rtol=1e-5)
    assert old.lens(0) == new.lens(0)
    for source in (
        {"kind": "nyu", "crop": "none"},
        {"kind": "synthetic", "size_wh": [640, 480]},
        {"kind": "merge", "parts": [{"source": {"kind": "rgbd", "size_hw": [480, 640]}}] * 2},
    ):
        path = tmp_path / f"{source['kind']}.zarr"
        told = stored(path, LENSES["kinect"], (107, 140)).cameras(np.arange(1))
        assert torch.equal(older(path, source=source).cameras(np.arange(1)), told)


@pytest.mark.parametrize("name", ["kinect", "every length in px"])
def test_an_older_store_whose_pixels_nobody_knows_is_refused_in_a_line_where_they_matter(
    tmp_path: Path, name: str
) -> None:
    stored(tmp_path / "old.zarr", LENSES[name], (107, 140))
    old = older(tmp_path / "old.zarr")
    asked: list[Callable[[], object]] = [
        lambda: old.lens(0), lambda: old.cameras(np.arange(1)), lambda: old.aspects(np.arange(1)),
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(ShardError, match=r"old\.zarr was made before .* make it again with dfd-prepare$") as error:
            ask()
        assert "\n" not in str(error.value)
    # The pictures are as good as ever.
    assert np.isnan(old[0]["lens"]["sensor_distance_px"])
    assert old[0]["aif"].shape == (107, 140, 3)
    assert store_facts(old.store)["frame size"] == "140x107"
