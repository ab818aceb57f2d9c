"""The labelled NYU frames as one small file that travels easily, and back into a folder for `dfd-prepare rgbd`.

    python benchmarks/paper/pack_frames.py pack FRAMES frames.zip      # once: 1449 frames, below 60 MB
    python benchmarks/paper/pack_frames.py unpack frames.zip frames    # where the training is
    dfd-prepare rgbd --pairs frames/pairs.csv --out nyu.zarr

FRAMES has `images_mirrored/N.jpg` and `depths_mirrored/N.png` (N from 0, 640x480, mirrored left-right, depth as 8-bit
codes of 9.99547 m / 255) and `splits.mat`, the official split. Packed are the 561x427 pixels that `dfd-prepare nyu` keeps:
colour as lossy WebP (quality 55), the codes as lossless WebP. Unpacking smooths the codes within their step of 39 mm and
writes millimetres. Such frames are worse than the official ones: no figure from them compares with a published one.
"""

import argparse
import csv
import zipfile
from pathlib import Path

import cv2
import numpy as np
from scipy.io import loadmat

ROWS, COLUMNS = slice(44, 471), slice(40, 601)
STEP_M = 9.99547 / 255
COLOUR_QUALITY, LOSSLESS = 55, 101


def frame(root, number):
    """Colour (427, 561, 3) BGR uint8 and depth codes (427, 561) uint8 of frame `number` (from 0), not mirrored."""
    colour = cv2.imread(str(root / f"images_mirrored/{number}.jpg"), cv2.IMREAD_COLOR)
    codes = cv2.imread(str(root / f"depths_mirrored/{number}.png"), cv2.IMREAD_GRAYSCALE)
    if colour is None or codes is None or colour.shape[:2] != (480, 640) or codes.shape != (480, 640):
        raise SystemExit(f"{root}: frame {number} is missing or not 640x480")
    return colour[:, ::-1][ROWS, COLUMNS], codes[:, ::-1][ROWS, COLUMNS]


def metres(codes):
    """Depth (H, W) metres, smoothed within each code's step; code 0 stays a hole."""
    banded = (codes.astype(np.float32) + 0.5) * np.float32(STEP_M)
    smooth = cv2.bilateralFilter(banded, 9, 2 * STEP_M, 4)
    return np.where(codes > 0, np.clip(smooth, banded - STEP_M / 2, banded + STEP_M / 2), 0)


def webp(image, quality):
    """`image` as the bytes of a WebP file."""
    done, encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if not done:
        raise SystemExit("this OpenCV cannot write WebP")
    return encoded.tobytes()


def pack(root, out):
    """Write the frames of the official split below `root` into the file `out`."""
    splits = loadmat(root / "splits.mat")
    partial = out.with_name(out.name + ".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for split, key in (("train", "trainNdxs"), ("test", "testNdxs")):
            for number in sorted(int(n) - 1 for n in splits[key].ravel()):
                colour, codes = frame(root, number)
                archive.writestr(f"{split}/{number:04d}.colour.webp", webp(colour, COLOUR_QUALITY))
                archive.writestr(f"{split}/{number:04d}.depth.webp", webp(cv2.merge([codes] * 3), LOSSLESS))
    partial.replace(out)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


def unpack(archive_path, out):
    """Write `out`/colour/N.png, `out`/depth/N.mm.png (16 bit) and `out`/pairs.csv from the file `archive_path`."""
    for folder in ("colour", "depth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    pairs = []
    with zipfile.ZipFile(archive_path) as archive:
        names = sorted(n.removesuffix(".colour.webp") for n in archive.namelist() if n.endswith(".colour.webp"))
        for name in names:
            split, number = name.split("/")
            colour, codes = (
                cv2.imdecode(np.frombuffer(archive.read(f"{name}.{kind}.webp"), np.uint8), flag)
                for kind, flag in (("colour", cv2.IMREAD_COLOR), ("depth", cv2.IMREAD_GRAYSCALE))
            )
            files = f"colour/{number}.png", f"depth/{number}.mm.png"
            cv2.imwrite(str(out / files[0]), colour, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            depth_mm = np.rint(metres(codes) * 1000).astype(np.uint16)
            cv2.imwrite(str(out / files[1]), depth_mm, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            pairs.append((*files, split))
    with open(out / "pairs.csv", "w", newline="") as file:
        csv.writer(file).writerows(pairs)
    print(f"{out}/pairs.csv: {len(pairs)} frames")


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    (pack if given.what == "pack" else unpack)(given.source, given.out)


if __name__ == "__main__":
    main()
