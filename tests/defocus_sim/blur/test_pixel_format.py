import numpy as np
import pytest

from defocus_sim.blur.light import linear_to_srgb, srgb_to_linear, to_uint8
from defocus_sim.blur.pixel_format import depth_counts, mirrored, quantised


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 7), (9, 16)])
@pytest.mark.parametrize("pad", [0, 1, 5, 23])
def test_planes_are_mirrored_as_numpy_does(rng, height, width, pad):
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    levels = rng.random(256, dtype=np.float32)
    planes = np.ascontiguousarray(np.moveaxis(levels[image], -1, 0))
    wanted = np.pad(planes, ((0, 0), (pad, pad + 3), (pad, pad + 2)), mode="symmetric")
    assert (mirrored(image, levels, (pad, pad), (height + 3, width + 2)) == wanted).all()
    assert (mirrored(planes, None, (pad, pad), (height + 3, width + 2)) == wanted).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("width", [1, 15, 16, 50])
def test_bytes_without_levels_are_those_of_zero_to_one(rng, channels, width):
    image = rng.integers(0, 256, (9, width, channels), dtype=np.uint8)
    image[0, 0], image[-1, -1] = 0, 255
    wanted = np.moveaxis(image.astype(np.float32) / np.float32(255), -1, 0)
    assert (mirrored(image, None, (3, 4), (11, width))[:, 3:12, 4:][:, :, :width] == wanted).all()
    # Upside down: not contiguous.
    assert (mirrored(image[::-1], None, (0, 0), (9, width)) == wanted[:, ::-1]).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("width", [1, 15, 16, 17, 50])
def test_planes_of_any_width_become_bytes_channel_after_channel(rng, channels, width):
    whole = rng.uniform(-0.5, 1.5, (channels, 9, width + 7)).astype(np.float32)
    for planes in (
        whole[:, :, :width],
        whole[:, ::2, :width],
        np.ascontiguousarray(whole[:, :, :width]),
        whole[..., ::-1],
    ):
        wanted = np.clip(planes * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
        assert (quantised(planes, False) == np.moveaxis(wanted, 0, -1)).all()


def test_bytes_are_the_nearest_levels_in_both_kinds_of_light(rng):
    planes = np.concatenate([rng.uniform(-0.01, 1.01, 200_000), np.linspace(0, 0.01, 50_000)]).astype(np.float32)
    planes = planes.reshape(1, 500, 500)
    for linear, encoded in ((False, planes[0]), (True, linear_to_srgb(planes[0]))):
        # Where a value lies between two levels to the last bits, either is the nearest.
        decided = np.abs(np.clip(encoded, 0, 1) * 255 % 1 - 0.5) > 1e-4
        assert decided.mean() > 0.999
        assert (quantised(planes, linear)[..., 0] == to_uint8(encoded))[decided].all()


def test_every_byte_survives_the_way_to_linear_light_and_back():
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    assert (quantised(srgb_to_linear(levels)[None, None], True)[0, :, 0] == np.arange(256)).all()
    assert (quantised(levels[None, None], False)[0, :, 0] == np.arange(256)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_depth_is_counted_by_kind(dtype):
    depth = np.array([[np.nan, -1, -np.inf, 0, np.inf], [1, 2, 200, 201, 1e9]], dtype)
    assert depth_counts(depth, 200.0) == (1, 1, 5, 2)
