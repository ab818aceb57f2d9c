"""The lens of a photograph from EXIF as phones, cameras and editing programs write it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from defocus_sim.errors import LensError
from defocus_sim.lens import Lens
from dfd_train.errors import ConfigError
from dfd_train.prediction.photo.exif import read_tags
from dfd_train.prediction.photo.lens import LensChoice, PhotoLens, lens_of_photograph, parse_lens

TAGS = {
    "make": 0x010F, "model": 0x0110, "orientation": 0x0112, "f": 0x829D, "apex": 0x9202, "focal": 0x920A, "eq": 0xA405,
    "distance": 0x9206, "zoom": 0xA404, "w": 0xA002, "h": 0xA003, "plane_x": 0xA20E, "plane_y": 0xA20F, "unit": 0xA210,
}  # fmt: skip
MAIN = ("make", "model", "orientation")
R = IFDRational


@dataclass(frozen=True)
class Layout:
    """EXIF of one device, and what its lens really is; sensor widths are across the upright picture, from data sheets."""

    name: str
    size: tuple[int, int]
    tags: dict[str, object]
    sensor_mm: float
    focal_mm: float
    f_number: float
    focus_m: float | None = None
    assumed: frozenset[str] = frozenset()
    tolerance: float = 0.05


def layout(name, size, sensor_mm, focal_mm, f_number, *, focus_m=None, assumed=(), tolerance=0.05, **tags):
    tags = {"w": size[0], "h": size[1], **tags}
    missing = {"focus_distance_m"} if focus_m is None else set()
    return Layout(
        name, size, {k: v for k, v in tags.items() if v is not None}, sensor_mm, focal_mm, f_number, focus_m,
        frozenset(assumed) | missing, tolerance,
    )  # fmt: skip


LAYOUTS = (
    layout("iPhone 13 Pro, portrait", (4032, 3024), 5.75, 5.7, 1.5, make="Apple", model="iPhone 13 Pro", orientation=6,
           f=R(3, 2), apex=R(14447, 12348), focal=R(57, 10), eq=26),
    layout("iPhone 15 Pro", (5712, 4284), 9.8, 6.765, 1.78, make="Apple", model="iPhone 15 Pro", f=R(1244236, 699009),
           focal=R(6764999, 1000000), eq=24),
    layout("iPhone 13 Pro, tele", (4032, 3024), 4.05, 9.0, 2.8, make="Apple", model="iPhone 13 Pro", f=R(14, 5),
           focal=R(9, 1), eq=77),
    layout("Galaxy S21", (4000, 3000), 7.2, 5.4, 1.8, make="samsung", model="SM-G991B", f=R(18, 10), focal=R(54, 10),
           eq=26, zoom=R(100, 100)),
    layout("Pixel 6, says its distance", (4080, 3072), 9.8, 6.81, 1.85, focus_m=0.53, make="Google", model="Pixel 6",
           f=R(185, 100), focal=R(6810, 1000), eq=24, distance=R(530, 1000), zoom=R(0, 1)),
    layout("Pixel 6, far away", (4080, 3072), 9.8, 6.81, 1.85, focus_m=12.8, make="Google",
           model="Pixel 6", f=R(185, 100), focal=R(6810, 1000), eq=24, distance=R(4294967295, 1)),
    layout("P30, distance 0", (3968, 2976), 7.16, 5.58, 1.8, make="HUAWEI", model="ELE-L29", f=R(180, 100),
           focal=R(5580, 1000), eq=27, distance=R(0, 1)),
    layout("a phone with an equivalent of 0", (4000, 3000), 5.6, 5.43, 1.89, assumed=("sensor_width_mm",), make="Xiaomi",
           model="M2007J3SG", f=R(189, 100), focal=R(5430, 1000), eq=0, tolerance=0.4),
    layout("a phone without zeros in its zoom", (4000, 3000), 6.4, 4.76, 1.7, make="OnePlus", model="ONEPLUS A6003",
           f=R(170, 100), focal=R(4760, 1000), eq=26, zoom=R(0, 0), tolerance=0.06),
    layout("EOS 5D Mark III", (5760, 3840), 36.0, 50.0, 1.4, make="Canon", model="Canon EOS 5D Mark III", f=R(14, 10),
           focal=R(50, 1), plane_x=R(5760000, 1461), plane_y=R(3840000, 972), unit=2),
    layout("EOS 350D", (3456, 2304), 22.2, 35.0, 2.0, make="Canon", model="Canon EOS 350D DIGITAL", f=R(2, 1),
           focal=R(35, 1), plane_x=R(3456000, 874), plane_y=R(2304000, 582), unit=2),
    layout("EOS R6, distance in centimetres", (5472, 3648), 35.9, 85.0, 2.0, focus_m=1.37, make="Canon",
           model="Canon EOS R6", f=R(20, 10), focal=R(85, 1), distance=R(137, 100), plane_x=R(5472000, 1415), unit=2),
    layout("EOS 80D, nonsense in the focal plane", (6000, 4000), 22.5, 24.0, 2.8, make="Canon", model="Canon EOS 80D",
           f=R(28, 10), focal=R(24, 1), plane_x=R(72, 1), unit=2),
    layout("PowerShot S100", (4000, 3000), 7.44, 5.2, 2.0, make="Canon", model="Canon PowerShot S100", f=R(20, 10),
           focal=R(5200, 1000), plane_x=R(4000000, 293), plane_y=R(3000000, 220), unit=2),
    layout("D200", (3872, 2592), 23.6, 35.0, 2.8, make="NIKON CORPORATION", model="NIKON D200", f=R(28, 10),
           focal=R(350, 10), eq=52),
    layout("D700, by the table", (4256, 2832), 36.0, 85.0, 1.8, make="NIKON CORPORATION", model="NIKON D700",
           f=R(18, 10), focal=R(850, 10), eq=0),
    layout("Z 6, pixels for a centimetre", (6048, 4024), 35.9, 50.0, 1.8, make="NIKON CORPORATION", model="NIKON Z 6",
           f=R(18, 10), focal=R(500, 10), eq=50, plane_x=R(168467, 100), plane_y=R(168467, 100), unit=3),
    layout("ILCE-7M3", (6000, 4000), 35.8, 55.0, 1.8, make="SONY", model="ILCE-7M3", f=R(18, 10), focal=R(550, 10),
           eq=55),
    layout("RX100, portrait", (5472, 3648), 8.8, 10.4, 1.8, make="SONY", model="DSC-RX100", orientation=8, f=R(18, 10),
           focal=R(1040, 100), eq=28),
    layout("X-T3", (6240, 4160), 23.5, 35.0, 1.4, make="FUJIFILM", model="X-T3", f=R(140, 100), focal=R(3500, 100),
           eq=53, plane_x=R(2655, 1), plane_y=R(2655, 1), unit=3),
    layout("E-M5, by the table", (4608, 3456), 17.3, 25.0, 1.8, make="OLYMPUS IMAGING CORP.", model="E-M5",
           f=R(18, 10), focal=R(25, 1)),
    layout("DC-GH5", (5184, 3888), 17.3, 12.0, 2.8, make="Panasonic", model="DC-GH5", f=R(28, 10), focal=R(120, 10),
           eq=24),
    layout("M9 with a lens of glass only", (5212, 3472), 35.8, 35.0, 2.8, assumed=("f_number", "focal_length_mm"),
           make="Leica Camera AG", model="M9 Digital Camera", f=R(0, 1), focal=R(0, 1), tolerance=0.06),
    layout("GoPro", (4000, 3000), 6.17, 3.0, 2.8, make="GoPro", model="HERO7 Black", f=R(28, 10), focal=R(3, 1), eq=17,
           distance=R(0, 1), tolerance=0.06),
    layout("drone, aperture in APEX", (5472, 3648), 13.2, 8.8, 2.8, make="DJI", model="FC6310", apex=R(297, 100),
           focal=R(88, 10), eq=24, tolerance=0.02),
    layout("turned by a program that kept the sides", (3024, 4032), 5.6, 5.7, 1.5, make="Apple", model="iPhone 13 Pro",
           orientation=1, w=4032, h=3024, f=R(3, 2), focal=R(57, 10), eq=26),
    layout("no EXIF at all", (640, 480), 36.0, 36.4, 2.8, w=None, h=None,
           assumed=("f_number", "focal_length_mm", "sensor_width_mm"), tolerance=0.01),
)  # fmt: skip


def write(path: Path, size: tuple[int, int], tags: dict[str, object]) -> Path:
    exif = Image.Exif()
    inside = exif.get_ifd(0x8769)
    for name, value in tags.items():
        (exif if name in MAIN else inside)[TAGS[name]] = value
    image = Image.new("L", size, 90)
    if path.suffix == ".tif":
        # Pillow's TIFF writer leaves out the inner directory of `exif`.
        directory = ImageFileDirectory_v2()
        directory[0x8769] = dict(inside)
        image.save(path, tiffinfo=directory)
    else:
        image.save(path, quality=20, **({"exif": exif} if tags else {}))
    return path


def lens_of(path: Path, choice: LensChoice | None = None) -> PhotoLens:
    with Image.open(path) as image:
        size = image.size
    return lens_of_photograph(read_tags(path), size, choice or LensChoice())


@pytest.mark.parametrize("device", LAYOUTS, ids=lambda device: device.name)
def test_a_device_s_exif_gives_its_lens(device: Layout, tmp_path: Path) -> None:
    found = lens_of(write(tmp_path / "a.jpg", device.size, device.tags))
    lens = found.lens
    assert lens.sensor_width_mm == pytest.approx(device.sensor_mm, rel=device.tolerance)
    assert lens.focal_length_mm == pytest.approx(device.focal_mm, rel=0.01)
    assert lens.f_number == pytest.approx(device.f_number, rel=0.01)
    assert set(found.assumed) == device.assumed
    assert found.knows_focus == (device.focus_m is not None)
    if device.focus_m is not None:
        assert lens.focus_distance_m == pytest.approx(device.focus_m, rel=2e-3)
    # Whatever had to be assumed is told in words, too.
    assert bool(found.relative) == (bool(device.assumed) or "far away" in device.name)
    said = {
        "f_number": "f/",
        "focal_length_mm": "focal length",
        "sensor_width_mm": "sensor",
        "focus_distance_m": "focus at",
    }
    for name in device.assumed:
        assert said[name] in found.describe().split("assumed")[1]
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("distance", [R(4294967295, 1), R(20000, 1), R(1200, 1)])
def test_a_focus_at_infinity_leaves_near_things_their_depth(distance: R, tmp_path: Path) -> None:
    """Infinity is blurred by what nobody sees; depths are limited to a hundredth of the focus distance."""
    tags = {"f": R(14, 5), "focal": R(35, 1), "eq": 52, "distance": distance}
    found = lens_of(write(tmp_path / "a.jpg", (600, 400), tags))
    assert found.lens.coc_at_infinity_px(5000) == pytest.approx(1, rel=1e-6)
    assert 50 < found.lens.focus_distance_m < 150
    (said,) = found.relative
    assert said.startswith("focused at infinity, taken as ")
    assert ("focus at infinity" in found.describe()) == (distance > 5000)
    assert found.to_json()["read"]["focus_distance_m"] == ("infinity" if distance > 5000 else 1200)
    closer = lens_of(tmp_path / "a.jpg", LensChoice(focus_distance_m=40))
    assert (closer.lens.focus_distance_m, closer.relative) == (40, ())


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_is_read_from_every_kind_of_file(suffix: str, tmp_path: Path) -> None:
    tags = {"make": "Google", "f": R(185, 100), "focal": R(681, 100), "eq": 24, "distance": R(3, 2)}
    found = lens_of(write(tmp_path / f"a.{suffix}", (400, 300), tags))
    assert (found.lens.f_number, found.lens.focus_distance_m) == (1.85, 1.5)


def test_resizing_keeps_the_field_of_view_and_cropping_the_size_of_a_pixel(tmp_path: Path) -> None:
    """The blur in pixels of a point is what has to come out right; it follows from both."""
    for tags in (
        {"f": R(2, 1), "focal": R(35, 1), "plane_x": R(6000 * 254, 225), "unit": 2, "distance": R(2, 1)},
        {"f": R(2, 1), "focal": R(35, 1), "eq": 56, "distance": R(2, 1)},
        {"make": "Canon", "model": "Canon EOS 80D", "f": R(2, 1), "focal": R(35, 1), "distance": R(2, 1)},
    ):
        taken = {"w": 6000, "h": 4000, **tags}
        whole = lens_of(write(tmp_path / "a.jpg", (6000, 4000), taken)).lens
        small = lens_of(write(tmp_path / "b.jpg", (1500, 1000), taken)).lens
        cut = lens_of(write(tmp_path / "c.jpg", (2500, 3000), taken)).lens
        assert small.sensor_distance_px(1500) == pytest.approx(whole.sensor_distance_px(6000) / 4, rel=1e-3)
        assert cut.sensor_distance_px(2500) == pytest.approx(whole.sensor_distance_px(6000), rel=1e-3)
        turned = {**taken, "orientation": 6}
        upright = lens_of(write(tmp_path / "d.jpg", (6000, 4000), turned)).lens
        assert upright.sensor_distance_px(4000) == pytest.approx(whole.sensor_distance_px(6000), rel=1e-3)


def test_what_the_user_says_replaces_what_the_file_says(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jpg", (4080, 3072), {"f": R(185, 100), "focal": R(681, 100), "eq": 24, "distance": R(1, 2)}
    )
    found = lens_of(path, LensChoice(focus_distance_m=1.25, f_number=4.0))
    assert (found.lens.focus_distance_m, found.lens.f_number, found.lens.focal_length_mm) == (1.25, 4.0, 6.81)
    assert set(found.given) == {"focus_distance_m", "f_number"}
    wider = lens_of(path, LensChoice(focal_length_mm=50.0, sensor_width_mm=36.0))
    assert (wider.lens.focal_length_mm, wider.lens.sensor_width_mm) == (50.0, 36.0)
    whole = lens_of(path, LensChoice(lens=Lens.preset("paper"), focus_distance_m=3.0, f_number=2.0))
    assert whole.lens == Lens.preset("paper", focus_distance_m=3.0, f_number=2.0)
    assert (whole.read, whole.assumed, whole.relative) == ({}, {}, ())
    with pytest.raises(ConfigError, match="f_number=-1"):
        LensChoice(f_number=-1)
    with pytest.raises(LensError, match="must exceed the focal length"):
        lens_of(path, LensChoice(focus_distance_m=0.001))


def test_the_equivalent_focal_length_comes_back(tmp_path: Path) -> None:
    found = lens_of(write(tmp_path / "a.jpg", (4080, 3072), {"f": R(185, 100), "focal": R(681, 100), "eq": 24}))
    assert found.equivalent_mm == pytest.approx(24, abs=0.01)
    assert lens_of(write(tmp_path / "b.jpg", (600, 400), {})).equivalent_mm == pytest.approx(35, abs=0.01)


@pytest.mark.parametrize("value", [(7, 0), "wide open", math.nan, -2.0, b"\xff\xfe"], ids=str)
def test_impossible_values_count_as_missing(value: object, tmp_path: Path) -> None:
    from dfd_train.prediction.photo.exif import tags_from

    tags = tags_from(dict.fromkeys(TAGS.values(), value), (400, 300))
    assert tags.f_number is None or 0.5 <= tags.f_number <= 128
    lens = lens_of_photograph(tags, (400, 300), LensChoice()).lens
    assert all(v is None or isinstance(v, str) or (math.isfinite(v) and v >= 0) for v in lens.to_json().values())


def test_damaged_exif_is_no_exif(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", (400, 300), {"make": "Google", "f": R(185, 100), "focal": R(681, 100), "eq": 24})
    data = bytearray(path.read_bytes())
    at = data.index(b"Exif\0\0") + 6
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken = data.copy()
        for position in rng.integers(at, at + 120, 6):
            broken[position] = rng.integers(256)
        path.write_bytes(broken)
        lens_of_photograph(read_tags(path), (400, 300), LensChoice())


def test_a_lens_is_a_preset_or_a_file(tmp_path: Path) -> None:
    assert parse_lens("paper") == Lens.preset("paper")
    mine = Lens(focus_distance_m=1.7, f_number=2.8, focal_length_mm=35, sensor_width_mm=23.6)
    mine.save(tmp_path / "lens.toml")
    assert parse_lens(str(tmp_path / "lens.toml")) == mine
    for content in (mine.to_json(), {"lens": mine.to_json()}, {"photograph": {"lens": mine.to_json(), "read": {}}}):
        (tmp_path / "lens.json").write_text(json.dumps(content))
        assert parse_lens(str(tmp_path / "lens.json")) == mine
    for text in ("{", "[1]", '{"lens": 3}', '{"f_number": 2}', '{"focus_distance_m": "far"}'):
        (tmp_path / "lens.json").write_text(text)
        with pytest.raises(ConfigError, match=r"lens\.json does not describe a lens"):
            parse_lens(str(tmp_path / "lens.json"))
    with pytest.raises(ConfigError, match="neither a file nor one of paper"):
        parse_lens("nonsense")
