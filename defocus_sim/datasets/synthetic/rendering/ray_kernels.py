"""Which solid every ray meets first: compiled, serial, without the GIL, as frames are what threads share.

Sums are written out in one order and nothing is contracted or reordered, so a frame is the same everywhere. Kernels that
call each other share a file: numba's cache would not notice a change of a function from another one.

A solid is a row of `table` (float64): centre (3), half extents (3), axes (9), and for a lattice period (2) and bar share
(2), for a cutout the number of its mask. See `raycast` for the conventions of axes and depth.
"""

from __future__ import annotations

import numpy as np

from defocus_sim.kernels import njit

BOX, SHELL, BALL, ROD, LATTICE, DISC, CUTOUT = range(7)
COLUMNS = 19


@njit(nogil=True, cache=True, error_model="numpy")
def _window(row, rotation, focal_px, height, width):
    """First and last row and column that can see a solid: bounds of its projected corners, one pixel wider."""
    top, bottom, left, right = np.inf, -np.inf, np.inf, -np.inf
    for corner in range(8):
        x, y, z = 0.0, 0.0, 0.0
        for k in range(3):
            place = row[k]
            for axis in range(3):
                sign = 1.0 if corner >> axis & 1 else -1.0
                place += sign * row[3 + axis] * row[6 + 3 * axis + k]
            x += rotation[0, k] * place
            y += rotation[1, k] * place
            z += rotation[2, k] * place
        if z <= 1e-3:
            return 0, height, 0, width
        column, line = x / z * focal_px + width / 2, y / z * focal_px + height / 2
        top, bottom = min(top, line), max(bottom, line)
        left, right = min(left, column), max(right, column)
    return (
        int(min(max(top - 1, 0), height)),
        int(min(max(bottom + 2, 0), height)),
        int(min(max(left - 1, 0), width)),
        int(min(max(right + 2, 0), width)),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _slab(s, o, d, tiny, last):
    """Where a ray enters the box, or leaves it where `last`; infinite where it misses."""
    near, far = -tiny / (tiny - tiny), tiny / (tiny - tiny)
    for axis in range(3):
        slope = d[axis]
        inverse = tiny / tiny / (tiny if abs(slope) < tiny else slope)
        low, high = (-s[3 + axis] - o[axis]) * inverse, (s[3 + axis] - o[axis]) * inverse
        near, far = max(near, min(low, high)), min(far, max(low, high))
    if last:
        return far
    return near if near <= far else tiny / (tiny - tiny)


@njit(nogil=True, cache=True, error_model="numpy")
def _first_root(o0, o1, o2, d0, d1, d2, inf):
    """Nearer root of |o + t d| = 1, infinite where there is none."""
    a = d0 * d0 + d1 * d1 + d2 * d2
    b = o0 * d0 + o1 * d1 + o2 * d2
    # |o|^2 - b^2/a is the squared distance of the line from the centre; formed this way it loses no digits far away.
    share = b / a
    c0, c1, c2 = o0 - d0 * share, o1 - d1 * share, o2 - d2 * share
    gap = a / a - (c0 * c0 + c1 * c1 + c2 * c2)
    return (-b - np.sqrt(gap * a)) / a if gap > 0 else inf


@njit(nogil=True, cache=True, error_model="numpy")
def _rod(s, o, d, inf):
    radius, length = s[3], s[4]
    zero = radius - radius
    side = _first_root(o[0] / radius, zero, o[2] / radius, d[0] / radius, zero, d[2] / radius, inf)
    if not abs(o[1] + side * d[1]) <= length:
        side = inf
    # Only the end that faces the camera can be the first hit.
    end = ((length if o[1] > 0 else -length) - o[1]) / d[1]
    x, z = o[0] + end * d[0], o[2] + end * d[2]
    return min(side, end) if end > 0 and x * x + z * z <= radius * radius else side


@njit(nogil=True, cache=True, error_model="numpy")
def _lattice(row, o, d, inf):
    depth = -o[2] / d[2]
    x, y = np.float64(o[0] + depth * d[0]), np.float64(o[1] + depth * d[1])
    if not (abs(x) <= row[3] and abs(y) <= row[4]):
        return inf
    # Shifted by half the sheet so that it ends in bars and not in loose ends.
    bar = (x + row[3]) % row[15] < row[17] * row[15] or (y + row[4]) % row[16] < row[18] * row[16]
    return depth if bar else inf


@njit(nogil=True, cache=True, error_model="numpy")
def _disc(s, o, d, inf):
    depth = -o[2] / d[2]
    x, y = (o[0] + depth * d[0]) / s[3], (o[1] + depth * d[1]) / s[4]
    return depth if x * x + y * y <= s[3] / s[3] else inf


@njit(nogil=True, cache=True, error_model="numpy")
def _cutout(row, mask, o, d, inf):
    """A rectangle that is there where its mask, stretched over it and interpolated, is above the middle grey."""
    depth = -o[2] / d[2]
    side = mask.shape[0]
    x = (np.float64(o[0] + depth * d[0]) / row[3] + 1) * 0.5 * side - 0.5
    y = (np.float64(o[1] + depth * d[1]) / row[4] + 1) * 0.5 * side - 0.5
    if not (0 <= x < side - 1 and 0 <= y < side - 1):
        return inf
    x0, y0 = int(x), int(y)
    fx, fy = x - x0, y - y0
    upper = mask[y0, x0] * (1 - fx) + mask[y0, x0 + 1] * fx
    lower = mask[y0 + 1, x0] * (1 - fx) + mask[y0 + 1, x0 + 1] * fx
    return depth if upper * (1 - fy) + lower * fy > 127.5 else inf


@njit(nogil=True, cache=True, error_model="numpy")
def cast_into(depth, owner, kinds, table, masks, rotation, turn, u, v, focal_px, tiny):
    """First hit of every ray into (H, W) `depth` and `owner`, computed in the type of `depth`.

    `u` (W,), `v` (H,): image plane coordinates; `rotation` world to camera, `turn` the same and `tiny` = 1e-12 in
    that type; `masks` (M, S, S) uint8.
    """
    height, width = depth.shape
    inf = tiny / (tiny - tiny)
    depth[:] = inf
    owner[:] = -1
    s, o, d = np.empty(COLUMNS, depth.dtype), np.empty(3, depth.dtype), np.empty(3, depth.dtype)
    for number in range(len(kinds)):
        kind, row = kinds[number], table[number]
        for column in range(COLUMNS):
            s[column] = row[column]
        for axis in range(3):
            o[axis] = -(row[6 + 3 * axis] * row[0] + row[7 + 3 * axis] * row[1] + row[8 + 3 * axis] * row[2])
        top, bottom, left, right = _window(row, rotation, focal_px, height, width)
        for y in range(top, bottom):
            for x in range(left, right):
                r0 = turn[0, 0] * u[x] + turn[1, 0] * v[y] + turn[2, 0]
                r1 = turn[0, 1] * u[x] + turn[1, 1] * v[y] + turn[2, 1]
                r2 = turn[0, 2] * u[x] + turn[1, 2] * v[y] + turn[2, 2]
                for axis in range(3):
                    d[axis] = s[6 + 3 * axis] * r0 + s[7 + 3 * axis] * r1 + s[8 + 3 * axis] * r2
                if kind == BALL:
                    found = _first_root(
                        o[0] / s[3], o[1] / s[4], o[2] / s[5], d[0] / s[3], d[1] / s[4], d[2] / s[5], inf
                    )
                elif kind == ROD:
                    found = _rod(s, o, d, inf)
                elif kind == LATTICE:
                    found = _lattice(row, o, d, inf)
                elif kind == DISC:
                    found = _disc(s, o, d, inf)
                elif kind == CUTOUT:
                    found = _cutout(row, masks[int(row[15])], o, d, inf)
                else:
                    found = _slab(s, o, d, tiny, kind == SHELL)
                if 0 < found < depth[y, x]:
                    depth[y, x] = found
                    owner[y, x] = number
