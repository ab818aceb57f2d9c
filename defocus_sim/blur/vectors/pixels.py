"""Float planes to the bytes of an image, as explicit vectors; see `intrinsics` for what they are made of."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from defocus_sim.blur.vectors.intrinsics import INT32, Arguments, Block, vector_intrinsic

_BYTE = ir.IntType(8)


@vector_intrinsic(constants=("channels", "lanes"))
def store_pixels(channels, lanes, planes, p_start, p_plane, image, i_start):
    """In compiled code: `lanes` neighbouring pixels of planes as bytes.

    The nearest of the levels 0 to 255 of [0, 1], x * 255 + 1/2 rounded down and limited, channel after channel of each
    pixel.

    Parameters
    ----------
    channels, lanes
        Constants: 1 or 3 channels, and how many pixels.
    planes
        float32, whose elements along a row are neighbours, as those of `image`.
    p_start, p_plane
        Flat index of the first pixel, and how far the next channel lies from it.
    image
        uint8.
    i_start
        Flat index of the first pixel's first byte.
    """

    def emit(given: Arguments) -> None:
        builder, block = given.builder, Block(given.builder, channels.literal_value, 1, lanes.literal_value)
        source = given.planes(block, "planes", "p")
        parts = [_bytes_of(block, block.load(*source.at(0, c))) for c in range(block.channels)]
        pixels = parts[0] if block.channels == 1 else _interleaved(builder, *parts)
        place = builder.gep(given.memory("image"), [given["i_start"]])
        builder.store(pixels, builder.bitcast(place, pixels.type.as_pointer()), align=1)

    return emit


def _bytes_of(block: Block, values: Any) -> Any:
    b, largest = block.builder, block.constant(255)
    # Rounded twice, as on the way of a single pixel.
    scaled = b.fadd(b.fmul(values, largest), block.constant(0.5))
    limited = block.larger(scaled, block.constant(0))
    limited = b.select(b.fcmp_ordered("<", limited, largest), limited, largest)
    whole = b.fptosi(limited, ir.VectorType(INT32, block.lanes))
    return b.trunc(whole, ir.VectorType(_BYTE, block.lanes))


def _interleaved(builder: Any, first: Any, second: Any, third: Any) -> Any:
    """Byte by byte one of each."""
    lanes = first.type.count

    def picked(a: Any, b: Any, order: list[int]) -> Any:
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT32, len(order)), order))

    pair = picked(first, second, list(range(2 * lanes)))
    # Both sides of a shuffle are as long; what is appended is not asked for.
    rest = picked(third, third, [*range(lanes), *range(lanes)])
    return picked(pair, rest, [start + k for k in range(lanes) for start in (0, lanes, 2 * lanes)])
