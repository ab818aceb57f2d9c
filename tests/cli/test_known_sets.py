"""docs/guide/your-own-rgbd.md: its commands for known data sets, on small files that lie and are called as theirs are."""

import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from defocus_sim.shards.store import open_store

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "your-own-rgbd.md"
SECTION = PAGE.read_text().partition("## Data sets that others have made")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^dfd-prepare .+$", SECTION, re.MULTILINE)
(STEP_BEFORE,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
HW = (24, 32)
# Nearer at the left, so that a wrong unit or a mirrored file shows.
METRES = np.broadcast_to(np.linspace(1, 3, HW[1]), HW)


def colour(path, hw=HW):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = [*path.as_posix().encode()][-20:]
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8))


def depth(path, per_metre=1000.0, kind=np.uint16):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.rint(METRES * per_metre).astype(kind) if kind != np.float32 else (METRES * per_metre).astype(kind)
    if path.suffix == ".npy":
        np.save(path, array[..., None])
    else:
        cv2.imwrite(str(path), array)


def exr(path):
    """One channel Z of floats, one row after the other, not compressed, by the format's own description."""
    path.parent.mkdir(parents=True, exist_ok=True)
    box = struct.pack("<4i", 0, 0, HW[1] - 1, HW[0] - 1)
    attributes = (
        ("channels", "chlist", b"Z\0" + struct.pack("<iB3xii", 2, 0, 1, 1) + b"\0"),
        ("compression", "compression", b"\0"),
        ("dataWindow", "box2i", box),
        ("displayWindow", "box2i", box),
        ("lineOrder", "lineOrder", b"\0"),
        ("pixelAspectRatio", "float", struct.pack("<f", 1)),
        ("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        ("screenWindowWidth", "float", struct.pack("<f", 1)),
    )
    head = struct.pack("<2i", 20000630, 2)
    for name, kind, value in attributes:
        head += f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value
    head += b"\0"
    rows = [struct.pack("<2i", y, 4 * HW[1]) + row.astype("<f4").tobytes() for y, row in enumerate(METRES)]
    first = len(head) + 8 * len(rows)
    path.write_bytes(
        head + struct.pack(f"<{len(rows)}Q", *(first + y * len(rows[0]) for y in range(HW[0]))) + b"".join(rows)
    )


def tum(root):
    desk, lines = root / "rgbd_dataset_freiburg1_desk", []
    for k in range(3):
        rgb, d = f"rgb/1305031102.{k}75304.png", f"depth/1305031102.{k}60407.png"
        colour(desk / rgb)
        depth(desk / d, 5000)
        lines.append(f"1305031102.{k}75304 {rgb} 1305031102.{k}60407 {d}")
    (desk / "associations.txt").write_text("\n".join(lines) + "\n")
    (desk / "rgb.txt").write_text("# color images\n# timestamp filename\n")


def sun(root):
    for k, place in enumerate(("kv1/NYUdata/NYU0001", "kv2/kinect2data/000002_2014", "xtion/sun3ddata/brown/a")):
        colour(root / f"SUNRGBD/{place}/image/{k}-000003451449.jpg")
        for folder in ("depth", "depth_bfx"):
            path = root / f"SUNRGBD/{place}/{folder}/{k}-00000344182{k}.png"
            path.parent.mkdir(parents=True)
            # Bits rotated by 3, as the data set's own reader undoes it.
            cv2.imwrite(str(path), np.rint(METRES * 1000).astype(np.uint16) << 3)
        (root / f"SUNRGBD/{place}/intrinsics.txt").write_text("520 0 320 0 520 240 0 0 1")


def scannet(root):
    for scene in ("scene0000_00", "scene0001_00", "scene0002_00"):
        for k in (0, 1):
            colour(root / f"scans/{scene}/color/{k}.jpg", (48, 64))
            depth(root / f"scans/{scene}/depth/{k}.png")
    (root / "scannetv2_val.txt").write_text("scene0001_00\n")


def diode(root):
    for k in range(3):
        name = root / f"diode/val/indoors/scene_00000/scan_00000/0000{k}_00000_indoors_000_000"
        colour(name.with_suffix(".png"))
        depth(Path(f"{name}_depth.npy"), 1, np.float32)
        mask = np.ones(HW)
        mask[:4] = 0
        np.save(f"{name}_depth_mask.npy", mask)


def hypersim(root):
    images = root / "hypersim/ai_001_001/images"
    # Of the data set's own size: the command of the page has the camera for it.
    z_m, focal_px = METRES.repeat(32, 0).repeat(32, 1), 886.81
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in z_m.shape)
    ray_m = z_m * np.sqrt(rows[:, None] ** 2 + columns**2 + focal_px**2) / focal_px
    for k in range(3):
        for view in ("color", "gamma", "tonemap"):
            colour(images / f"scene_cam_00_final_preview/frame.{k:04}.{view}.jpg", z_m.shape)
        path = images / f"scene_cam_00_geometry_hdf5/frame.{k:04}.depth_meters.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["dataset"] = ray_m.astype(np.float16)


def middlebury(root):
    place = root / "Adirondack-perfect"
    for name in ("im0.png", "im1.png"):
        colour(place / name)
    # As its calib.txt says: 4161.221 px, 176.252 mm, and 209.059 px between the principal points.
    cv2.imwrite(str(place / "disp0.pfm"), (4161.221 * 0.176252 / METRES - 209.059).astype(np.float32))
    (place / "calib.txt").write_text("cam0=[4161.221 0 1445.577; 0 4161.221 984.686; 0 0 1]\ndoffs=209.059\n")


def replica(root):
    for k in range(3):
        colour(root / f"Replica/room0/results/frame{k:06}.jpg")
        depth(root / f"Replica/room0/results/depth{k:06}.png", 6553.5)


def bts(root):
    lines = []
    for k in (45, 46, 47):
        colour(root / f"sync/bath_0001/rgb_{k:05}.jpg")
        depth(root / f"sync/bath_0001/sync_depth_{k:05}.png")
        lines.append(f"/bath_0001/rgb_{k:05}.jpg /bath_0001/sync_depth_{k:05}.png 518.8579")
    (root / "nyudepthv2_train_files_with_gt.txt").write_text("\n".join(lines) + "\n")


def densedepth(root):
    for k in (1, 2, 3):
        colour(root / f"nyu2_train/bath_0001_out/{k}.jpg")
        depth(root / f"nyu2_train/bath_0001_out/{k}.png", 25.5, np.uint8)


def phone(root):
    for k in range(3):
        colour(root / f"EXR_RGBD/rgb/{k}.jpg", (48, 64))
        exr(root / f"EXR_RGBD/depth/{k}.exr")


SETS = {
    "tum": (tum, 3),
    "tum-list": (tum, 3),
    "sun": (sun, 3),
    "sun-filled": (sun, 3),
    "scannet": (scannet, 6),
    "diode": (diode, 3),
    "hypersim": (hypersim, 3),
    "middlebury": (middlebury, 1),
    "replica": (replica, 3),
    "bts": (bts, 3),
    "densedepth": (densedepth, 3),
    "phone": (phone, 3),
}


def test_every_set_of_the_page_is_tried():
    assert [Path(shlex.split(line)[-1]).stem for line in COMMANDS] == list(SETS)


@pytest.mark.parametrize("name", SETS)
def test_a_known_set_converts_by_the_command_of_the_page(name, tmp_path, run_command):
    write, count = SETS[name]
    write(tmp_path)
    step = subprocess.run(
        [sys.executable, "-c", STEP_BEFORE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert step.returncode == 0, step.stderr
    (line,) = [one for one in COMMANDS if one.endswith(f" {name}.zarr")]
    words = shlex.split(line)
    if "--size" in words:
        # The frames are small; their size is not what is tried.
        words[words.index("--size") + 1] = "32x24"
    result = run_command(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    store = open_store(tmp_path / f"{name}.zarr")
    assert sum(len(store.split(split)) for split in store.split_names) == count
    found = store.split("train").read([0])["depth_m"][0]
    holes = found == 0
    np.testing.assert_allclose(found[~holes], METRES[~holes], rtol=0.02)
    assert holes.mean() == (4 / 24 if name == "diode" else 0)
    if name == "scannet":
        assert {n.partition("/")[0] for n in store.split("test").names} == {"scene0001_00"}
