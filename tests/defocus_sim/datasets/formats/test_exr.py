"""Depth from OpenEXR: files of the reference library, and damage that is named."""

import base64
import sys
import zlib

import numpy as np
import OpenEXR
import pytest

from defocus_sim.datasets.formats.exr import exr_header, read_exr
from defocus_sim.errors import SourceError

# Written by OpenEXR 3.5.3 (Python), 18 rows of 7 pixels, then zlib and base 64: see DEPTH for what they hold.
FILES = {
    "no": (
        "eNqFkq1Pw0AYxp+NMWAw2IJFoBAIPvYP8C54IDNLUJT1tl1Srk17GaCYRKIIQSGRSIIgBIVEoghBECQSydvtuA24hCZPnkvv11/f"
        "fnSWVzNZAI22p5QIEl4EMtGY5XPbSHfSI2OCRrgXxSJJZKh+rHubvqe9ulR+uI/d8KAiUcLgyHPKKSSTKPAO/+UCqcRm7It4aNW7"
        "SyQPRFBNItHQNU/LEM0g9DRyvau7a0kjFkL19etCab6sU2lifOgWw0hd+rr9S6EPI4FEx1K1UOzxnkqHkHteS+A+07e8mS6Yl7Rk"
        "uma6Y/rc9K3pV9P5kX4vmt4wHZs+NX1j+tl0tj8mFnKDJ5ozkwN3HBAwzyHODqdLGctc8P4Lp8TnVzhbnIhzTFnLDDu6R98O4IRG"
        "LON2AGeUs8zfOVIHz0CjlnE7gEvKW8btAK5ozDJuB3BN45ZxO/h5acIybgfwQAXLuB3AI01axu0Anmhq8L2cDn63VLSM2wG807Rl"
        "3A7gg2Ys43YAn1Qa/BtOB29Uy5ZxO4Bc9QtB4bs/"
    ),
    "rle": (
        "eNqFUzFME2EUfr0rFVS0bEymi4IOihgT1Cb+hRYdTCQuqFPP9qCXlOuld0FIHN41DiQuXUwYO5K4MJIYwzFoGBwYGEykpIODiVEq"
        "GuMi9d3dK/wlNd6fL9+f6/d9773//s5fuRpRACBX0ExTL9q0KRq2A+fpXQoiED4RxmNQjr2BXGnOKuu2bZTMjn0gyGuONm2Y+dJT"
        "eFJaGDUgDkdPjDBAyBu2VdQW/6srGqZ+v5zXy9IuaMEyFvRiyrb0nPNAc4wSzBRLmgPRwI237VxZ180wfkI3HbLNj85Ar1RClkwb"
        "eadwLMJZtHSwnbJhzkJ/oNdMvwljTpvVYZuPSeHDucacZ37J/I75F/OQGvIj5hfMb5i/Mp8L24B7zM+YXzF/ZO7rOZroAqEFMWwC"
        "CA+xlvVEIwHJSkV195PrqfWUJ3j5zV8k/AEEBfeESDSytaq1OrU10oz3Xq9EjxsUNrQgijvteACKh/jlivv6jovJUN6KBAaVDQcQ"
        "FABPyv89OBR1v7cNvKKHFVQMTD+5f4g3EwnVbaJ7S5ILzx98mKDiN0EdSemfhwe76GOHBRRUYV9Kb4wMKO4euthpOEHiS/5VSOE4"
        "Toi0lxYZLwMwQuWmCBZhibBMWCGsiV52wDhMQBrTkMEMTFJz9GuWgIQqoUZYJXiir11DqiAm/5UPsClO8tgHgD2wezjBlvCmfrjo"
        "r5sdU5xqfwgUUah7fEAfxjbvrj380s1wmm9SDOooha9mPwVi90aHup/baYkeqAspe6Ww001/xv8P+HqMwa4UXrO2w2Y65Wfb8fS5"
        "654Uvrzwvps+LjUvZVfxbdjMmKzeGGhfCTqanUZWCl96vtHN8BeJGI1s"
    ),
    "zips": (
        "eNqFUm9oE2cc/uXuepf+SXI5ZCsa29RW7cTVqEWPrbYXU7GMoUGkDWXoXS+nd216OXNHTdC5S7upiEr9MiaO0eqYgigp+EHRD7lu"
        "uE+DDibLh31IEUHQD/02UAZ7L3lNMr/shYfn5b3n97zP73fvzI6dHgIAZFXSdSVlok1KMy0YQWejmnL6cymnZPpi6ekJTVeSfUfA"
        "A9XlwaiLhhXDUvvGgXhPAXJ62sgopqml9f/s3Y9EUrKkMU1Ppk/DRDq7SwMW6otGCCIkNdNISbn/1aVQyMOZpJJp2FUiGFpWSUVN"
        "Q5GtI5KlpeFEKi1ZQFWq7SFTziiKXrWPKbqFymZ2nQBvwxWNkjEtaanvWVg5QwHTymj6SfBV9JLuhtCmpZMK/I3HtgUPJ4H5EubH"
        "mF9ibierPII5h/k25meY8fWwHfMo5jzmu5j/xEw01TvaipA9Jqs20PQF0udr5fz8QFwsaJOTFHHjn6tvNwZ4oQvOPOYcN/02t2Yf"
        "DNmCHbX32zFhGGBhCKCMwAoAEYQ4goFwUSDeVQyCAFE4CzEYtlFFEanRCYQR7K8ARJcR5gW3o4+qkURVVQ2Rny+I+53zdivdSfHn"
        "Ru7snRXmfjv3K+k3vDBzgHPcljbjHoCg6fBSeNX+mWyi6XygpeWKsLKifln0NBNwfCDouH33VsRTFXPR+C5e6CrPOoznaie3o79n"
        "fX5h8fc3NslRcOYo59A1vYz0Isw2NTOhjt5IxHs2nhXDJbRWSmLVnz/FOkwt/VTFXuQb3fWEsQet/j2JTkOYhVyUc9y3teXdBcj/"
        "POkPrGtvpwZ7ByIPy8U/SiX4epQJzYeh/wPWaa6pp5A7EBfwUJ6sPJROLT8fk2WSHd/oeqs/cE4LUnZjbxHmmJa2NqJzXUf7FwbP"
        "rj1a8lD3/Hw4Cl3bWKcVyXqqxsg3Tza4ygd/efWUZh98UrYpjzLJOW1It6lqa9t0ZcyBtj4+5C3Nr/24GKQ+DriuG+6zjq8WwBSB"
        "ZPAMvl8rBZc2PT8U6/aOd7hZB38KOv6a6ZRoQ4NlYaH8mUxipbAYdAK1qJ8WgWZ6jql/FfjVpe6JA08vX9p9xRdWc5XfoVznHLY+"
        "ART1G4b+MOSnUiOJeGRxVXXvDxlCcQ72fRtcDtaeEcqaZ5rX791+KPv6YuLazls3b70Q62J5klv+FxE6PXs="
    ),
    "zip": (
        "eNor0zdkZGJgYEjOSMzLS80pBjJyMotLGISBYpEMjAwQwAjFDMn5uQVFqcXFmfl5KGyQJHNKYklieGZeSn45Q1J+hVEmgwADArAB"
        "sSAQp2QWF+QkVhJUl5OZl+pflJJahMQCO6EgsyI1x7G4IDW5JCixJDOfIS0nP7GEgQWsu8G+OLkoNTUPYrxzal4JUFuZURoDB5IV"
        "yErCM1NKMtCMKKksSGUoLinKzEtn4AWrT8wDOSIzNzE9lcEJGihLGBEmRgFxRVxu52neBgMeZ+Oo/DNHlmuci4qxkmCX2e7kqhQ0"
        "/3fO58Jj4V7/Zx25pTPttvbOiVdE8iZHCP9/3MeQL7qRdR3rPu8/AorFSyr1JUPPGC3u0hFd3mH1aLPtHe3AE6DgkQFZ49rgyuDW"
        "4Mbg3uDO4OHgesDVwe2Am4P7AXcFDwBbsn03"
    ),
    "rgb": (
        "eNor0zdkZGJgYEjOSMzLS80pBjJyMotLGMyBYk4MIBkQYIRidwyRIAwRhuT83IKi1OLizPw8FDZIkjklsSQxPDMvJb+cISm/wiiT"
        "QYABAdiAWBCIUzKLC3ISKwmqy8nMS/UvSkktQmKBnVCQWZGa41hckJpcEpRYkpnPkJaTn1jCwALW3WBfnFyUmpoHMd45Na8EqK3M"
        "KI2BA8kKZCXhmSklGWhGlFQWpDIUlxRl5qUz8ILVJ+aBHJGZm5ieypDGCDGFhwlh4jwgroh7e05QgMlR4uhHfW7xw0c/GPw5d+hw"
        "gaEND/9hEHXm3eEPBjE84publr00vbyHc9Puyi/N/88IC25d1nnQpFJQbb5Tzut1Ul1vnpkvS1edtKfjtE+E7jqf9/J6v4+0XP10"
        "qCXU0CBxq5Vx4tJjLVd/HWkJvWqYuNXSKFFUSTjsNrNwWOnplqt5569Mr838dWt/SlbV/L+rzr/bvay3iD8hrOU+KIiNwK5MDqhI"
        "KDj40OFAWwsrq7CU1IePJnkRcz7cENyolOzm6u7Na3ePkZ3FJsNfVI4huz74EAD0PrB4"
    ),
    "colour": (
        "eNor0zdkZGJgYEjOSMzLS80pBjJyMotLGMyBYk4MIBkQYIRidwyRIAwRhuT83IKi1OLizPw8FDZIkjklsSQxPDMvJb+cISm/wiiT"
        "QYABAdiAWBCIUzKLC3ISKwmqy8nMS/UvSkktQmKBnVCQWZGa41hckJpcEpRYkpnPkJaTn1jCwALW3WBfnFyUmpoHMd45Na8EqK3M"
        "KI2BA8kKZCXhmSklGWhGlFQWpDIUlxRl5qUz8ILVJ+aBHJGZm5ieypDGCDHFhQlh4jUgroh726co0OQg4Ho9TUWo021R72JJIDkx"
        "QUFCT4KDbdHEDJVbFrOApFCnGW9P8f/+UyuMzdJP392719zfZcrFXR29WbaC1UVV61OfbS2cqJ565cde4703Jt8+e+5MW7xSM3tv"
        "3WGe+p2yUs/V02K+ZWzRj2k7dnSi5PSFhlozCyWlprOnAQV2JBxLzYh5CxKYPAckd3YGkLk1DSh6Jw/E3DwFKFq4PS2sNTTjyufE"
        "byeXBbrFqu8o3G9YnSuT/v/n3SsHLbZ/fpcmW7O3klnob8d9UNQ4g32XHFCRUHDwocOBthZWVmEpKYE1fV2crCuKpMx1/CredERM"
        "NFy8aPFStoOvNGdOatYqP8DIyH9LOUKhI7ZvgRdDLnfwIQCdCc2z"
    ),
}
ROW, COLUMN = np.mgrid[0:18, 0:7]
DEPTH = (1 + 0.25 * ROW + 0.5 * COLUMN).astype(np.float32)
DEPTH[2, 3] = np.inf


def write(folder, name):
    path = folder / f"{name}.exr"
    path.write_bytes(zlib.decompress(base64.b64decode(FILES[name])))
    return path


@pytest.mark.parametrize("name", ["no", "rle", "zips", "zip", "rgb"])
def test_files_of_the_reference_library_are_read_exactly(tmp_path, name):
    path = write(tmp_path, name)
    assert exr_header(path) == (18, 7, False)
    depth = read_exr(path)
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, DEPTH)


def test_a_colour_picture_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"colour\.exr has channels .B, G, R"):
        read_exr(write(tmp_path, "colour"))


def save(path, channels, **header):
    with OpenEXR.File(
        {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}, channels
    ) as file:
        file.write(str(path))
    return path


EXACT = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "B44", "DWAA")
PLANE = np.ascontiguousarray(np.broadcast_to(np.linspace(1, 4, 8, dtype=np.float32), (6, 8)))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("tiled", [False, True])
def test_every_compression_of_lines_and_tiles_is_read(tmp_path, name, tiled):
    tiles = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()} if tiled else {}
    path = save(tmp_path / "a.exr", {"Z": PLANE}, compression=getattr(OpenEXR, f"{name}_COMPRESSION"), **tiles)
    np.testing.assert_array_equal(read_exr(path), PLANE)


@pytest.mark.parametrize("kind", [np.uint32, np.float16])
def test_whole_and_half_numbers_keep_their_values(tmp_path, kind):
    stored = (PLANE * 8).astype(kind)
    read = read_exr(save(tmp_path / "a.exr", {"depth": stored}))
    assert read.dtype == (np.uint32 if kind is np.uint32 else np.float32)
    np.testing.assert_array_equal(read, stored)


WRONG = np.full_like(PLANE, 0.9)


@pytest.mark.parametrize(
    "channels",
    [
        {"Z": PLANE, "N.X": WRONG, "N.Y": WRONG, "N.Z": WRONG},
        {"Z": PLANE, "P.X": WRONG, "P.Y": WRONG, "P.Z": WRONG, "Y": WRONG},
        {"normal.X": WRONG, "normal.Y": WRONG, "normal.Z": WRONG, "zdepth.Z": PLANE},
        {"ViewLayer.Combined.R": WRONG, "ViewLayer.Combined.A": WRONG, "ViewLayer.Depth.Z": PLANE},
        {"ViewLayer.Depth.V": PLANE, "ViewLayer.Normal.X": WRONG, "ViewLayer.Normal.Z": WRONG},
        {"Depth.R": PLANE, "Depth.G": PLANE, "Depth.B": PLANE, "R": WRONG, "G": WRONG, "B": WRONG},
        {"Z": PLANE, "ZBack": WRONG, "A": WRONG},
        {"V": PLANE},
        {"Y": PLANE, "A": WRONG},
    ],
    ids=lambda channels: "+".join(channels),
)
def test_depth_is_found_by_its_name_beside_other_passes(tmp_path, channels):
    np.testing.assert_array_equal(read_exr(save(tmp_path / "a.exr", channels)), PLANE)


@pytest.mark.parametrize(
    ("channels", "word"),
    [
        ({"left.depth": PLANE, "right.depth": WRONG}, "several"),
        ({"A.Depth.Z": PLANE, "B.Depth.Z": WRONG}, "several"),
        ({"X": WRONG, "Y": WRONG, "Z": WRONG}, "none of them"),
        ({"N.X": WRONG, "N.Y": WRONG, "N.Z": WRONG}, "none of them"),
        ({"Y": WRONG, "U": WRONG}, "none of them"),
    ],
)
def test_what_may_be_several_things_is_refused(tmp_path, channels, word):
    with pytest.raises(SourceError, match=rf"a\.exr.*{word}"):
        read_exr(save(tmp_path / "a.exr", channels))


def test_a_data_window_within_the_display_window_keeps_its_place(tmp_path):
    corners = [np.array(c, np.int32) for c in ((2, 3), (9, 8), (0, 0), (11, 9))]
    path = save(
        tmp_path / "a.exr", {"Z": PLANE}, dataWindow=(corners[0], corners[1]), displayWindow=(corners[2], corners[3])
    )
    depth = read_exr(path)
    assert exr_header(path)[:2] == depth.shape == (10, 12)
    np.testing.assert_array_equal(depth[3:9, 2:10], PLANE)
    assert np.count_nonzero(depth) == PLANE.size


def test_without_the_library_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(SourceError, match=r"a\.exr.*dfd-toolkit\[exr\]"):
        read_exr(save(tmp_path / "a.exr", {"Z": PLANE}))


@pytest.mark.parametrize("name", ["no", "rle", "zips", "zip"])
def test_damage_is_a_named_error_or_another_number_and_never_worse(tmp_path, name):
    rng = np.random.default_rng(0)
    path = write(tmp_path, name)
    whole = path.read_bytes()
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(0, len(data))] = rng.integers(0, 256)
        path.write_bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.5 else data)
        try:
            assert read_exr(path).ndim == 2
        except SourceError as error:
            assert path.name in str(error)
            assert "\n" not in str(error)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x76\x2f\x31\x01", b"\x76\x2f\x31\x01\x02\x02\x00\x00"])
def test_what_is_no_scan_line_file_is_refused(tmp_path, content):
    path = tmp_path / "x.exr"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.exr"):
        read_exr(path)
