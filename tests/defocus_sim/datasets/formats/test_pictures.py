"""Pictures as cameras, telephones and programs write them: each opens, upright, with its own colours."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from defocus_sim.datasets.formats.images import colour_size, read_colour, read_depth_units
from defocus_sim.datasets.formats.pictures import read_picture
from defocus_sim.errors import SourceError
from dfd_train.prediction.images import read_picture as read_for_prediction


def pattern(height: int = 40, width: int = 60) -> np.ndarray:
    """Smooth, and changed by every turn and mirroring."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 4, y * 6, (x + 2 * y) % 120 + 60], axis=-1).astype(np.uint8)


BACK = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, -1),
}  # fmt: skip


def exif(orientation: int) -> bytes:
    tag = Image.Exif()
    tag[274] = orientation
    return tag.tobytes()


def late(data: bytes) -> bytes:
    """A PNG with its EXIF behind the pixels."""
    at, parts = 8, []
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        parts.append(data[at : at + 12 + size])
        at += 12 + size
    told = [part for part in parts if part[4:8] == b"eXIf"]
    rest = [part for part in parts if part[4:8] != b"eXIf"]
    return data[:8] + b"".join(rest[:-1] + told + rest[-1:])


@pytest.mark.parametrize("orientation", BACK)
@pytest.mark.parametrize("ending", [".jpg", ".png", ".late.png", ".tif", ".deep.tif", ".webp", ".avif"])
def test_the_size_in_the_header_is_that_of_the_upright_picture(tmp_path: Path, orientation: int, ending: str) -> None:
    stored = np.ascontiguousarray(BACK[orientation](pattern()))
    path, buffer = tmp_path / f"a{ending}", io.BytesIO()
    if ending == ".deep.tif":
        tifffile.imwrite(
            path, stored.astype(np.uint16) * 257, photometric="rgb", extratags=[(274, 3, 1, orientation, True)]
        )
    elif ending == ".tif":
        Image.fromarray(stored).save(path, tiffinfo={274: orientation})
    else:
        kind = {".jpg": "JPEG", ".webp": "WEBP", ".avif": "AVIF"}.get(ending, "PNG")
        exact = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind != "PNG" else {}
        Image.fromarray(stored).save(buffer, kind, exif=exif(orientation), **exact)
        path.write_bytes(late(buffer.getvalue()) if ending == ".late.png" else buffer.getvalue())
    assert colour_size(path) == (40, 60)
    read = read_colour(path)
    assert np.abs(read.astype(int) - pattern()).mean() < (4 if ending in (".jpg", ".avif") else 1e-9)
    assert read_picture(path).orientation == orientation
    np.testing.assert_array_equal(read_for_prediction(path).pixels, read_picture(path).pixels)


def test_an_orientation_in_xmp_alone_turns_nothing(tmp_path: Path) -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    Image.fromarray(pattern()).save(tmp_path / "a.jpg", quality=95, xmp=xmp)
    assert colour_size(tmp_path / "a.jpg") == read_colour(tmp_path / "a.jpg").shape[:2] == (40, 60)


def test_several_pictures_in_one_file_and_a_film_behind_it_give_the_first(tmp_path: Path) -> None:
    first, second = Image.fromarray(pattern()), Image.fromarray(pattern()[::-1].copy())
    first.save(tmp_path / "a.mpo", quality=95, save_all=True, append_images=[second])
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.mpo").read_bytes())
    buffer = io.BytesIO()
    first.save(buffer, "JPEG", quality=95)
    # A moving photograph: the coded film holds every pair of bytes.
    (tmp_path / "b.jpg").write_bytes(buffer.getvalue() + b"\0\0\0\x18ftypmp42" + b"\xff\xd9\xff\xda" * 50 + b"\xff\xda")
    first.save(tmp_path / "c.gif", save_all=True, append_images=[second])
    first.save(tmp_path / "d.webp", lossless=True, save_all=True, append_images=[second])
    tifffile.imwrite(tmp_path / "e.tif", np.stack([pattern(), pattern()[::-1]]), photometric="rgb")
    first.save(tmp_path / "f.png", save_all=True, append_images=[second])
    for path in sorted(tmp_path.iterdir()):
        assert colour_size(path) == (40, 60)
        assert np.abs(read_colour(path).astype(int) - pattern()).mean() < (14 if path.suffix == ".gif" else 4), (
            path.name
        )


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_jpeg_cut_short_is_refused_though_its_thumbnail_has_an_end(tmp_path: Path, cut: float) -> None:
    thumb, buffer = io.BytesIO(), io.BytesIO()
    Image.fromarray(pattern(8, 12)).save(thumb, "JPEG")
    tag = Image.Exif()
    tag[270] = thumb.getvalue().decode("latin-1")
    Image.fromarray(pattern(200, 300)).save(buffer, "JPEG", quality=97, exif=tag.tobytes())
    data = buffer.getvalue()
    (tmp_path / "a.jpg").write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(SourceError, match=r"a\.jpg is truncated"):
        read_colour(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "YCbCr"])
@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg", ".bmp", ".webp", ".gif", ".jp2", ".ppm"])
def test_what_pillow_writes_is_read_as_pillow_shows_it(tmp_path: Path, mode: str, ending: str) -> None:
    image = (
        Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27)
        if mode == "I;16"
        else (Image.fromarray(pattern()).convert(mode))
    )
    path = tmp_path / f"a{ending}"
    try:
        image.save(path)
    except (OSError, ValueError):
        pytest.skip(f"Pillow writes no {mode} as {ending}")
    with Image.open(path) as shown:
        assert colour_size(path) == shown.size[::-1]
        wide = shown.mode.startswith("I") and ending != ".ppm"
        wanted = np.asarray(shown).astype(float) / 257 if wide else np.asarray(shown.convert("RGB")).astype(float)
    read = read_colour(path).astype(float)
    if ending == ".ppm" and mode == "I;16":
        wanted = np.arange(2400).reshape(40, 60) * 27 / 257
    assert np.abs(read - (wanted if wanted.ndim == 3 else wanted[..., None])).max() <= 0.51


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".jpg", ".webp", ".ppm", ".jp2"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_opencv_writes_is_read_as_opencv_shows_it(tmp_path: Path, ending: str, deep: bool, channels: int) -> None:
    if (
        (deep and ending not in (".png", ".tif"))
        or (channels == 4 and ending not in (".png", ".tif", ".webp"))
        or (channels == 1 and ending == ".ppm")
    ):
        pytest.skip("OpenCV writes no such file")
    image = np.dstack([pattern(), pattern()[..., 0]])[..., :channels].squeeze()
    cv2.imwrite(str(tmp_path / f"a{ending}"), image.astype(np.uint16) * 257 if deep else image)
    wanted = cv2.imread(str(tmp_path / f"a{ending}"), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_allclose(read_colour(tmp_path / f"a{ending}"), wanted, atol=1)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("packed", [None, "zlib"])
def test_a_tiff_of_any_layout_has_its_colours(
    tmp_path: Path, planar: str, order: str, kind: type, packed: str | None
) -> None:
    image = pattern().astype(kind) * (257 if kind is np.uint16 else 1)
    stored = np.moveaxis(image, 2, 0) if planar == "separate" else image
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", planarconfig=planar, byteorder=order, compression=packed)
    # Planes of 16 bit are cut to 8, not rounded.
    np.testing.assert_allclose(read_colour(path), pattern(), atol=kind is np.uint16 and planar == "separate")


def test_200_megapixels_open_and_more_than_the_limit_is_said(tmp_path: Path) -> None:
    def flat(width: int, height: int) -> bytes:
        def chunk(kind: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        rows = zlib.compress((b"\0" + b"\x80" * width) * height, 9)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

    (tmp_path / "a.png").write_bytes(flat(16320, 12240))
    assert colour_size(tmp_path / "a.png") == (12240, 16320)
    pixels = read_colour(tmp_path / "a.png")
    assert pixels.shape == (12240, 16320, 3)
    assert int(pixels[::999, ::999].min()) == int(pixels[::999, ::999].max()) == 128
    data = bytearray(flat(8, 8))
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "b.png").write_bytes(data)
    with pytest.raises(SourceError, match="larger than 268 megapixels"):
        read_colour(tmp_path / "b.png")


def test_heic_opens_and_without_the_library_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow_heif.from_pillow(Image.fromarray(pattern(64, 96))).save(tmp_path / "a.heic", quality=95)
    assert colour_size(tmp_path / "a.heic") == (64, 96)
    assert np.abs(read_colour(tmp_path / "a.heic").astype(int) - pattern(64, 96)).mean() < 4
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    for read in (colour_size, read_colour):
        with pytest.raises(SourceError, match=r"a\.heic.*dfd-toolkit\[heic\]"):
            read(tmp_path / "a.heic")


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "form",
    [
        {}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}, {"bigtiff": True},
        {"photometric": "miniswhite"}, {"rowsperstrip": 5}, {"extratags": [(274, 3, 1, 6, True)]},
    ],
    ids=str,
)  # fmt: skip
def test_a_depth_tiff_of_any_form_keeps_its_numbers(tmp_path: Path, kind: str, order: str, form: dict) -> None:
    if kind == "i1" and "tile" in form:
        pytest.skip("neither decoder reads small tiles of signed bytes, which is said")
    rng, dtype = np.random.default_rng(0), np.dtype(kind)
    if dtype.kind == "f":
        stored = rng.normal(3, 1, (37, 53)).astype(dtype)
        stored[0, :2] = np.nan, np.inf
    else:
        stored = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, (37, 53), dtype=dtype, endpoint=True)
    if dtype.kind == "f" and "predictor" in form:
        pytest.skip("the independent writer has no predictor for floating point numbers")
    if kind == "u1" and order == ">" and "bigtiff" in form:
        form = {}
    tifffile.imwrite(tmp_path / "a.tif", stored, byteorder=order, **form)
    read = read_depth_units(tmp_path / "a.tif")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, np.rot90(stored, -1) if "extratags" in form else stored)


def test_a_depth_tiff_that_means_something_else_is_refused_or_heeded(tmp_path: Path) -> None:
    stored = np.full((4, 5), 2.0, np.float32)
    tifffile.imwrite(tmp_path / "half.tif", stored.astype(np.float16))
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([stored, stored]), photometric="minisblack")
    gdal = '<GDALMetadata><Item name="SCALE" sample="0" role="scale">0.001</Item></GDALMetadata>'
    tifffile.imwrite(tmp_path / "scale.tif", stored, extratags=[(42112, 2, len(gdal) + 1, gdal, True)])
    for name, word in (("half", "16 bit"), ("pages", "2 pictures"), ("scale", "0.001")):
        with pytest.raises(SourceError, match=rf"{name}\.tif.*{word}"):
            read_depth_units(tmp_path / f"{name}.tif")
    stored[1, 2] = -9999
    tifffile.imwrite(tmp_path / "nodata.tif", stored, extratags=[(42113, 2, 6, "-9999", True)])
    assert read_depth_units(tmp_path / "nodata.tif")[1, 2] == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_depth_png_of_any_number_of_bits_keeps_its_numbers(tmp_path: Path, bits: int) -> None:
    stored = np.random.default_rng(bits).integers(0, 2**bits, (5, 7))
    rows = b""
    for row in stored:
        if bits == 16:
            rows += b"\0" + row.astype(">u2").tobytes()
        else:
            text = "".join(f"{value:0{bits}b}" for value in row)
            rows += b"\0" + bytes(int(text[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(text), 8))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 7, 5, bits, 0, 0, 0, 0)
    path = tmp_path / "a.png"
    for clear in (None, 1):
        told = b"" if clear is None else chunk(b"tRNS", struct.pack(">H", clear))
        body = chunk(b"IHDR", header) + told + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        wanted = stored if clear is None else np.where(stored == clear, 0, stored)
        np.testing.assert_array_equal(read_depth_units(path), wanted)


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<f2", ">f4", ">f8", "<i4", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_numpy_file_of_any_order_keeps_its_numbers(tmp_path: Path, kind: str, order: str) -> None:
    stored = np.asarray(np.random.default_rng(0).uniform(1, 90, (5, 7)), kind, order=order)
    np.save(tmp_path / "a.npy", stored)
    np.savez_compressed(tmp_path / "a.npz", depth=stored)
    for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
        np.testing.assert_array_equal(read_depth_units(path), stored)
    np.save(tmp_path / "a.npy", np.zeros((5, 7), [("z", "f4"), ("w", "f4")]))
    with pytest.raises(SourceError, match=r"a\.npy holds"):
        read_depth_units(tmp_path / "a.npy")
