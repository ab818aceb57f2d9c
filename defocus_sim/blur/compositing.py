"""The layered blur's kernels: one tile at a time, one layer after another, front to back.

Why the amounts are what they are stands in `layered`. Here it is done sparsely: a layer costs a tile nothing unless one
of its pixels is within reach of it, and a tile ends where no light is left. Serial, without the GIL; inputs are trusted.
What sums floats is inlined by force: else a process that compiles `render` calls the functions as they were compiled alone,
and one that loads it the copies in its file, which differ in where products and sums are fused.
All weights are positive sums (no differences of running totals), so constants keep their value to float32 rounding.
"""
# mypy: allow-untyped-defs

import numpy as np

from defocus_sim.blur.vectors.intrinsics import LANES
from defocus_sim.blur.vectors.smooth import weigh_along, weigh_down
from defocus_sim.kernels import njit

NOWHERE = np.float32(-9.0)  # the place of a pixel that has no hidden surface: in no layer, behind none
_TILE = 64
_BLOCK = 16  # occupancy is known per block of 16x16 pixels
_OPAQUE = 2e-4  # a tile is done when less light than this passes everywhere
_TINY = np.float32(1e-6)
_ZERO = np.float32(0)
_ONE = np.float32(1)
# Blocks whose sums stay in registers: rows and vectors of one going down the columns, vectors of one going along a row.
_DOWN_ROWS, _DOWN_VECTORS = 4, 2
_ACROSS_VECTORS = 4


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def render(planes, place, hidden_planes, hidden_place, near_share, pad, kernels, reach, centre, disc, out):
    """Fill `out` (C,H,W) from inputs mirror-padded by `pad`.

    planes, hidden_planes (C,H+2p,W+2p) float32; place, hidden_place (H+2p,W+2p) float32 among the K layers; near_share
    the same shape: 1, or at an edge pixel how much of it `planes` is (the rest is visible `hidden_planes`). kernels
    (K,R+1,R+1) float32: [k, dy, w] weight of the box of half-width w in row dy (disc), or [k, 0, j] of offset j
    (Gaussian); reach (K,) their radius; centre (K,) signed CoC.
    """
    channels, height, width = out.shape
    layers = len(centre)
    side = _TILE + 2 * pad
    seen = _occupied(place, layers)
    behind = _occupied(hidden_place, layers)
    # Whole vectors are read and written, beyond the last row as well.
    spare = _DOWN_VECTORS * LANES
    work = np.empty((channels + 2) * side * side + spare, np.float32)[:-spare].reshape(channels + 2, side, side)
    rows = np.empty((max(_TILE, pad + 2), side + spare), np.float32)
    filled = np.empty(side, np.bool_)
    visible = np.zeros((channels + 2, _TILE, _TILE), np.float32)
    hidden = np.zeros((channels + 2, _TILE, _TILE), np.float32)
    total = np.empty((channels, _TILE, _TILE), np.float32)
    state = np.empty((3, _TILE, _TILE), np.float32)
    for y0 in range(0, height, _TILE):
        for x0 in range(0, width, _TILE):
            h = min(_TILE, height - y0)
            w = min(_TILE, width - x0)
            total[:] = 0
            state[:2] = 1
            state[2] = 0
            beyond_focus = False
            for k in range(layers):
                r = reach[k]
                top = y0 + pad - r
                left = x0 + pad - r
                has_hidden = _any_block(behind, k, top, left, h + 2 * r, w + 2 * r)
                if not has_hidden and not _any_block(seen, k, top, left, h + 2 * r, w + 2 * r):
                    continue
                if centre[k] > 0 and not beyond_focus:
                    beyond_focus = True
                    state[1] = state[0]
                box = (top, left, h, w)
                kernel = (kernels[k], r, disc)
                scratch = (work, rows, filled)
                if has_hidden:
                    has_hidden = _blur_surface(
                        hidden_planes, hidden_place, planes, place, near_share, False, k, box, kernel, scratch, hidden
                    )
                has_visible = _blur_surface(
                    planes, place, hidden_planes, hidden_place, near_share, True, k, box, kernel, scratch, visible
                )
                if not has_visible and not has_hidden:
                    continue
                if _composite(visible, hidden, has_hidden, beyond_focus, h, w, total, state) < _OPAQUE:
                    break
            for c in range(channels):
                for y in range(h):
                    for x in range(w):
                        if state[2, y, x] > 0:
                            out[c, y0 + y, x0 + x] = total[c, y, x] / state[2, y, x]
                        else:
                            out[c, y0 + y, x0 + x] = planes[c, y0 + y + pad, x0 + x + pad]


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"}, forceinline=True)
def _composite(visible, hidden, has_hidden, beyond_focus, height, width, total, state):
    """Put a blurred layer behind what is there; returns the most light that still passes anywhere.

    visible, hidden (C+2,..): colours, coverage, coverage of this layer and behind. Updates total (C,..) and state (3,..):
    light that passes, light that passed the layers nearer than the focus, weight so far.
    """
    channels = total.shape[0]
    most = _ZERO
    to_visible = np.empty(width, np.float32)
    to_hidden = np.empty(width, np.float32)
    for y in range(height):
        passes = state[0, y, :width]
        passed_near = state[1, y, :width]
        weight = state[2, y, :width]
        q = visible[channels + 1, y, :width]
        a = visible[channels, y, :width]
        u = hidden[channels + 1, y, :width]
        b = hidden[channels, y, :width]
        for x in range(width):
            t = passes[x]
            s = _ZERO
            if has_hidden:
                s = max(t - q[x], _ZERO)
                if beyond_focus and t < _ONE:
                    swapped = (_ONE - passed_near[x]) / (_ONE - t)
                    s += swapped * (min(t, _ONE - q[x]) - s)
                s = min(s, u[x]) if q[x] > _TINY else t
            v = (t - s) / q[x] if q[x] > _TINY else _ZERO
            s = s / u[x] if has_hidden and u[x] > _TINY else _ZERO
            stopped = v * a[x]
            if has_hidden:
                stopped += s * b[x]
            to_visible[x] = v
            to_hidden[x] = s
            weight[x] += stopped
            t = max(t - stopped, _ZERO)
            passes[x] = t
            most = max(most, t)
        for c in range(channels):
            target = total[c, y, :width]
            colour = visible[c, y, :width]
            for x in range(width):
                target[x] += to_visible[x] * colour[x]
            if has_hidden:
                colour = hidden[c, y, :width]
                for x in range(width):
                    target[x] += to_hidden[x] * colour[x]
    return most


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _blur_surface(planes, place, rest, rest_place, near_share, visible, k, box, kernel, scratch, out):
    """Blur one surface's part in layer k: out (C+2,h,w) = colours, coverage, coverage of k and behind.

    The visible surface is `near_share` of `planes` and the rest of `rest`; the hidden one is `near_share` of `planes`.
    Returns whether it has anything in this layer here; the hidden surface's `out` is not filled otherwise.
    """
    channels = planes.shape[0]
    top, left, height, width = box
    taps, reach, disc = kernel
    work, rows, filled = scratch
    patch = work[:, : height + 2 * reach, : width + 2 * reach]
    empty, deepest, frontmost = _cut(
        planes, place, rest, rest_place, near_share, visible, np.float32(k), top, left, patch, filled
    )
    if empty and not visible:
        return False
    for c in range(channels + 2):
        target = out[c, :height, :width]
        if c == channels + 1 and frontmost:
            target[:] = 1
        elif c == channels + 1 and deepest:
            target[:] = out[channels, :height, :width]
        elif c <= channels and empty:
            target[:] = 0
        else:
            if c == channels + 1:
                filled[:] = True
            if reach == 0:
                for y in range(height):
                    if filled[y]:
                        target[y] = patch[c, y]
                    else:
                        target[y] = 0
            elif disc:
                _blur_disc(patch[c], filled, taps, reach, rows, target)
            else:
                _blur_gaussian(work, c, height, width, filled, taps[0], reach, rows, out)
    return not empty


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"}, forceinline=True)
def _cut(planes, place, rest, rest_place, near_share, visible, level, top, left, patch, filled):
    """Cut layer `level` of a surface into patch (C+2,..), see `_blur_surface`; filled[y]: the row has any coverage.

    Returns (nothing lies in the layer, nothing lies behind it, everything lies in it or behind).
    """
    channels, height, width = planes.shape[0], patch.shape[1], patch.shape[2]
    empty = True
    least = _ONE
    farther = _ZERO
    for y in range(height):
        at = place[top + y, left : left + width]
        share = near_share[top + y, left : left + width]
        cover = patch[channels, y]
        behind = patch[channels + 1, y]
        some = _ZERO
        mixed = _ZERO
        for x in range(width):
            v = max(_ZERO, _ONE - abs(at[x] - level))
            b = min(_ONE, max(_ZERO, at[x] - level + _ONE))
            cover[x] = v
            behind[x] = b
            some = max(some, v)
            least = min(least, b)
            farther = max(farther, b - v)
            mixed = max(mixed, _ONE - share[x])
        for c in range(channels if some > 0 else 0):
            colour = planes[c, top + y, left : left + width]
            target = patch[c, y]
            for x in range(width):
                target[x] = cover[x] * colour[x]
        if mixed > 0:
            at_rest = rest_place[top + y, left : left + width]
            for x in range(width):
                if share[x] == _ONE:
                    continue
                v = _ZERO
                b = _ZERO
                if visible:
                    v = (_ONE - share[x]) * max(_ZERO, _ONE - abs(at_rest[x] - level))
                    b = (_ONE - share[x]) * min(_ONE, max(_ZERO, at_rest[x] - level + _ONE))
                if some == 0 and v > 0:
                    patch[:channels, y] = 0
                some = max(some, v)
                for c in range(channels if some > 0 else 0):
                    patch[c, y, x] = share[x] * patch[c, y, x] + v * rest[c, top + y, left + x]
                cover[x] = share[x] * cover[x] + v
                behind[x] = share[x] * behind[x] + b
                least = min(least, behind[x])
                farther = max(farther, behind[x] - cover[x])
        filled[y] = some > 0
        if some > 0:
            empty = False
    return empty, farther == 0, least == _ONE


@njit(nogil=True, cache=True, forceinline=True)
def _blur_gaussian(work, c, height, width, filled, half, reach, lines, out):
    """Down the columns of patch `c` of `work` into `lines`, then along these; writes whole vectors, `_TILE` columns."""
    side = work.shape[2]
    numbers = np.empty(height + 2 * reach, np.int64)
    count = 0
    for y in range(height + 2 * reach):
        if filled[y]:
            numbers[count] = y
            count += 1
    weights = np.zeros(2 * (reach + _DOWN_ROWS) - 1, np.float32)
    for j in range(2 * reach + 1):
        weights[_DOWN_ROWS - 1 + j] = half[abs(j - reach)]
    first, last = 0, -1
    for y in range(0, height, _DOWN_ROWS):
        while first < count and numbers[first] < y:
            first += 1
        while last + 1 < count and numbers[last + 1] < y + _DOWN_ROWS + 2 * reach:
            last += 1
        for x in range(0, width + 2 * reach, _DOWN_VECTORS * LANES):
            start = c * side * side + x
            weigh_down(
                rows=_DOWN_ROWS, vectors=_DOWN_VECTORS, lanes=LANES, weights=weights, w_start=_DOWN_ROWS - 1 - y,
                numbers=numbers, first=first, last=last, source=work, s_start=start, s_row=side,
                out=lines, o_start=y * lines.shape[1] + x, o_row=lines.shape[1],
            )  # fmt: skip
    for y in range(height):
        for x in range(0, width, _ACROSS_VECTORS * LANES):
            at = y * lines.shape[1] + reach + x
            weigh_along(
                vectors=_ACROSS_VECTORS, lanes=LANES, half=half, reach=reach,
                source=lines, s_start=at, out=out, o_start=(c * _TILE + y) * _TILE + x,
            )  # fmt: skip


# Not inlined: its bits are the same either way, and a layered disc takes a sixth longer with it.
@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _blur_disc(source, filled, boxes, reach, rows, out):
    """Each input row's box sums of every half-width, built up two taps at a time, serve all rows of the disc at once."""
    height, width = out.shape
    line = rows[reach + 1, :width]
    out[:] = 0
    for i in range(height + 2 * reach):
        if not filled[i]:
            continue
        data = source[i]
        least = max(0, reach - i, i - reach - height + 1)  # rows of the disc nearer to its centre miss the tile
        widest = reach
        while widest > 0 and boxes[least, widest] == 0:
            widest -= 1
        rows[0, :width] = data[reach : reach + width]
        for w in range(1, widest + 1):
            before = data[reach - w : reach - w + width]
            after = data[reach + w : reach + w + width]
            inner = rows[w - 1, :width]
            outer = rows[w, :width]
            for x in range(width):
                outer[x] = inner[x] + (before[x] + after[x])
        for dy in range(least, reach + 1):
            line[:] = 0
            for w in range(widest + 1):
                weight = boxes[dy, w]
                if weight != 0:
                    box = rows[w, :width]
                    for x in range(width):
                        line[x] += weight * box[x]
            above = i - reach - dy
            below = i - reach + dy
            if 0 <= above < height:
                target = out[above]
                for x in range(width):
                    target[x] += line[x]
            if dy > 0 and 0 <= below < height:
                target = out[below]
                for x in range(width):
                    target[x] += line[x]


@njit(nogil=True, cache=True)
def _occupied(place, layers):
    """(K, by, bx) bool: has the block a pixel in the layer?"""
    height, width = place.shape
    found = np.zeros((layers, (height + _BLOCK - 1) // _BLOCK, (width + _BLOCK - 1) // _BLOCK), np.bool_)
    for y in range(height):
        for x in range(width):
            at = place[y, x]
            if at >= 0:
                low = int(at)
                found[low, y // _BLOCK, x // _BLOCK] = True
                if at > low:
                    found[low + 1, y // _BLOCK, x // _BLOCK] = True
    return found


@njit(nogil=True, cache=True)
def _any_block(found, k, top, left, height, width):
    for by in range(top // _BLOCK, (top + height - 1) // _BLOCK + 1):
        for bx in range(left // _BLOCK, (left + width - 1) // _BLOCK + 1):
            if found[k, by, bx]:
                return True
    return False
