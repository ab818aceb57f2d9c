"""The light that comes back along every ray, and what textures and exposure need: compiled, serial, without the GIL.

Sums are written out in one order and nothing is contracted or reordered, so a frame is the same everywhere. Kernels that
call each other share a file: numba's cache would not notice a change of a function from another one.
"""

from __future__ import annotations

import numpy as np

from defocus_sim.datasets.synthetic.rendering.ray_kernels import BALL, ROD, SHELL
from defocus_sim.kernels import njit

_TINY = np.float32(1e-12)
_ONE, _ZERO, _HALF = np.float32(1), np.float32(0), np.float32(0.5)


@njit(nogil=True, cache=True, error_model="numpy")
def _ray(turn, u, v):
    """Direction in world axes of the ray through the point (u, v) of the image plane."""
    return (
        turn[0, 0] * u + turn[1, 0] * v + turn[2, 0],
        turn[0, 1] * u + turn[1, 1] * v + turn[2, 1],
        turn[0, 2] * u + turn[1, 2] * v + turn[2, 2],
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _local(s, x, y, z):
    """A world point in the solid's own axes."""
    x, y, z = x - s[0], y - s[1], z - s[2]
    return x * s[6] + y * s[7] + z * s[8], x * s[9] + y * s[10] + z * s[11], x * s[12] + y * s[13] + z * s[14]


@njit(nogil=True, cache=True, error_model="numpy")
def _box_axis(s, p):
    x, y, z = abs(p[0]) / s[3], abs(p[1]) / s[4], abs(p[2]) / s[5]
    if y > x:
        return 2 if z > y else 1
    return 2 if z > x else 0


@njit(nogil=True, cache=True, error_model="numpy")
def nearest_of_faces(depth, owner, kinds, solids, turn, u, v, nearest):
    """Least depth seen of every solid's faces into `nearest` (S, 6), infinite where none is; all types float32."""
    nearest[:] = np.inf
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            number, far = owner[y, x], depth[y, x]
            face = 0
            if kinds[number] <= SHELL:
                ray = _ray(turn, u[x], v[y])
                p = _local(solids[number], ray[0] * far, ray[1] * far, ray[2] * far)
                axis = _box_axis(solids[number], p)
                face = 2 * axis + (p[axis] > 0)
            nearest[number, face] = min(nearest[number, face], far)


@njit(nogil=True, cache=True, error_model="numpy")
def _surface(kind, s, row, p):
    """Surface coordinates in metres, face and local normal at the local point `p`."""
    if kind <= SHELL:
        axis = _box_axis(s, p)
        if axis == 0:
            return p[2], p[1], (1 if p[0] > 0 else 0), (np.sign(p[0]), _ZERO, _ZERO)
        if axis == 1:
            return p[0], p[2], (3 if p[1] > 0 else 2), (_ZERO, np.sign(p[1]), _ZERO)
        return p[0], p[1], (5 if p[2] > 0 else 4), (_ZERO, _ZERO, np.sign(p[2]))
    if kind == BALL:
        x, y, z = p[0] / s[3], p[1] / s[4], p[2] / s[5]
        radius = (s[3] + s[4] + s[5]) / np.float32(3)
        n0, n1, n2 = x / s[3], y / s[4], z / s[5]
        length = np.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
        along, across = np.arctan2(x, -z) * radius, np.arcsin(min(max(y, -_ONE), _ONE)) * radius
        return along, across, 0, (n0 / length, n1 / length, n2 / length)
    if kind == ROD:
        if abs(p[1]) > 0.9999 * row[4] and np.hypot(p[0], p[2]) < 0.999 * row[3]:
            return p[0], p[2], 0, (_ZERO, p[1] / max(abs(p[1]), _TINY), _ZERO)
        length = max(np.sqrt(p[0] * p[0] + p[2] * p[2]), _TINY)
        return np.float32(np.arctan2(p[0], -p[2]) * row[3]), p[1], 0, (p[0] / length, _ZERO, p[2] / length)
    return p[0], p[1], 0, (_ZERO, _ZERO, _ONE)


@njit(nogil=True, cache=True, error_model="numpy")
def _corners(start, side, u, v):
    """Rows of the four texels around (u, v) in tiles, of the level that begins at `start`, and their weights."""
    x, y = (u - np.floor(u)) * np.float32(side) - _HALF, (v - np.floor(v)) * np.float32(side) - _HALF
    low_x, low_y = np.floor(x), np.floor(y)
    x0, y0, fx, fy = int(low_x), int(low_y), x - low_x, y - low_y
    # Sides are powers of two. Unsigned: numba would look for negative indices.
    left, right = x0 & (side - 1), (x0 + 1) & (side - 1)
    upper, lower = start + (y0 & (side - 1)) * side, start + ((y0 + 1) & (side - 1)) * side
    gx, gy = _ONE - fx, _ONE - fy
    rows = (np.uint64(upper + left), np.uint64(upper + right), np.uint64(lower + left), np.uint64(lower + right))
    return rows, (gy * gx, gy * fx, fy * gx, fy * fx)


@njit(nogil=True, cache=True, error_model="numpy")
def _weigh(atlas, at, w, k):
    return atlas[at[0], k] * w[0] + atlas[at[1], k] * w[1] + atlas[at[2], k] * w[2] + atlas[at[3], k] * w[3]


@njit(nogil=True, cache=True, error_model="numpy")
def trilinear(atlas, starts, side, u, v, level):
    """Colour at (u, v) in tiles, wrapped, of a pyramid whose levels begin at rows `starts` of `atlas` (N, 3).

    `side`: of level 0; `level`: 0 to below the last, with a fraction.
    """
    base = int(level)
    part = level - np.float32(base)
    at, w = _corners(starts[base], side >> base, u, v)
    coarse_at, coarse_w = _corners(starts[base + 1], side >> (base + 1), u, v)
    r, g, b = _weigh(atlas, at, w, np.uint64(0)), _weigh(atlas, at, w, np.uint64(1)), _weigh(atlas, at, w, np.uint64(2))
    return (
        r + (_weigh(atlas, coarse_at, coarse_w, np.uint64(0)) - r) * part,
        g + (_weigh(atlas, coarse_at, coarse_w, np.uint64(1)) - g) * part,
        b + (_weigh(atlas, coarse_at, coarse_w, np.uint64(2)) - b) * part,
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _lit(shadow, view, focal_px, x, y, z, cosine):
    """Share of the light of a lamp that reaches the point (x, y, z) relative to it, whose surface it meets at `cosine`.

    `shadow` (S, S): z-depth of what the lamp sees first, in the axes `view`; what it does not see is lit.
    """
    side = shadow.shape[0]
    far = view[2, 0] * x + view[2, 1] * y + view[2, 2] * z
    if far <= _ZERO:
        return _ONE
    across = (view[0, 0] * x + view[0, 1] * y + view[0, 2] * z) / far * focal_px + np.float32(side / 2 - 0.5)
    down = (view[1, 0] * x + view[1, 1] * y + view[1, 2] * z) / far * focal_px + np.float32(side / 2 - 0.5)
    if not (_ZERO <= across < side - 1 and _ZERO <= down < side - 1):
        return _ONE
    # What is one texel of the shadow's image further on along the surface is not in its shadow.
    steep = min(np.sqrt(max(_ONE - cosine * cosine, _ZERO)) / max(cosine, np.float32(0.1)), np.float32(8))
    limit = far * (_ONE - (np.float32(1.5) + np.float32(1.5) * steep) / focal_px)
    x0, y0 = int(across), int(down)
    fx, fy = across - np.float32(x0), down - np.float32(y0)
    upper = (_ONE - fx if shadow[y0, x0] >= limit else _ZERO) + (fx if shadow[y0, x0 + 1] >= limit else _ZERO)
    lower = (_ONE - fx if shadow[y0 + 1, x0] >= limit else _ZERO) + (fx if shadow[y0 + 1, x0 + 1] >= limit else _ZERO)
    return upper * (_ONE - fy) + lower * fy


@njit(nogil=True, cache=True, error_model="numpy")
def shade_into(
    out, depth, owner, kinds, table, solids, turn, u, v, texel_m, finishes, looks, lamps, sky, shadow, view, shadow_px,
    atlas, starts, side,
):  # fmt: skip
    """Linear light of every 2x2 block of rays, averaged, into `out` (H/2, W/2, 3).

    `texel_m` (S, 6): size of a texel on every face; `looks` (S, 6) the row of `finishes` of every face. A finish:
    texture, cos, sin, offset (2), tint (3), swap (3), gloss, sharpness, emission. A row of `lamps`: position (3), reach,
    colour (3); `sky`: ambient light (3). `shadow`, `view`, `shadow_px`: what the first lamp sees, see `_lit`; 1x1 for
    no shadows. `atlas` (N, 3): the textures' levels one behind the other, beginning at rows `starts` (T, L). `solids`:
    `table` in float32.
    """
    levels = starts.shape[1]
    greatest = np.float32(levels - 1.001)
    # The last two levels in grey, as one more pyramid: a slow variation at an unrelated scale hides that tiles repeat.
    base = int(greatest)
    part = greatest - np.float32(base)
    grey = np.empty((len(atlas), 1), np.float32)
    mean = np.empty(len(starts), np.float32)
    for texture in range(len(starts)):
        for level in (base, base + 1):
            first = starts[texture, level]
            for i in range(first, first + (side >> level) ** 2):
                grey[i, 0] = (atlas[i, 0] + atlas[i, 1] + atlas[i, 2]) / np.float32(3)
        last = starts[texture, levels - 1]
        mean[texture] = grey[last : last + (side >> (levels - 1)) ** 2].mean()
    lamps32 = lamps.astype(np.float32)
    finishes32 = finishes.astype(np.float32)
    pixel = u[1] - u[0]
    quarter = np.float32(0.25)
    shadows = shadow.shape[0] > 1
    out[:] = 0
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            number, far = owner[y, x], depth[y, x]
            s = solids[number]
            ray = _ray(turn, u[x], v[y])
            point = (ray[0] * far, ray[1] * far, ray[2] * far)
            along, across, face, n = _surface(kinds[number], s, table[number], _local(s, point[0], point[1], point[2]))
            n0 = n[0] * s[6] + n[1] * s[9] + n[2] * s[12]
            n1 = n[0] * s[7] + n[1] * s[10] + n[2] * s[13]
            n2 = n[0] * s[8] + n[1] * s[11] + n[2] * s[14]
            slope = n0 * ray[0] + n1 * ray[1] + n2 * ray[2]
            length = np.sqrt(ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2])
            facing = abs(slope) / length
            turned = -np.sign(slope)
            n0, n1, n2 = n0 * turned, n1 * turned, n2 * turned
            at = looks[number, face]
            look, look32 = finishes[at], finishes32[at]
            texture, texel = int(look[0]), texel_m[number, face]
            scale = 1 / (texel * side)
            # A face's number moves it to another part of the texture: edges of a box do not mirror the pattern.
            tile_u = np.float32((along * look[1] - across * look[2]) * scale + look[3] + 0.37 * face)
            tile_v = np.float32((along * look[2] + across * look[1]) * scale + look[4] + 0.61 * face)
            # Geometric mean of the two axes of a sample's footprint on the surface.
            footprint = far * pixel / np.float32(texel) / np.sqrt(max(facing, np.float32(0.05)))
            level = min(max(np.log2(max(footprint, np.float32(1e-6))), _ZERO), greatest)
            colour = trilinear(atlas, starts[texture], side, tile_u, tile_v, level)
            slow_u, slow_v = tile_v * np.float32(0.173), tile_u * np.float32(0.173)
            rows, weights = _corners(starts[texture, base], side >> base, slow_u, slow_v)
            shade = _weigh(grey, rows, weights, np.uint64(0))
            rows, weights = _corners(starts[texture, base + 1], side >> (base + 1), slow_u, slow_v)
            shade += (_weigh(grey, rows, weights, np.uint64(0)) - shade) * part
            shade = min(max(shade / mean[texture], np.float32(0.55)), np.float32(1.5))
            # Ambient light that prefers the sky; Lambert's cosine with inverse-square falloff beyond a lamp's reach.
            lit = _ONE - np.float32(0.35) * n1
            red, green, blue = sky[0] * lit, sky[1] * lit, sky[2] * lit
            shine_red, shine_green, shine_blue = _ZERO, _ZERO, _ZERO
            for number_of_lamp in range(len(lamps32)):
                lamp = lamps32[number_of_lamp]
                t0, t1, t2 = lamp[0] - point[0], lamp[1] - point[1], lamp[2] - point[2]
                distance = t0 * t0 + t1 * t1 + t2 * t2
                cosine = t0 * n0 + t1 * n1 + t2 * n2
                if cosine <= _ZERO:
                    continue
                reached = _ONE + distance / (lamp[3] * lamp[3])
                away = np.sqrt(distance)
                direct = cosine / away / reached
                if number_of_lamp == 0 and shadows:
                    share = _lit(shadow, view, shadow_px, -t0, -t1, -t2, cosine / away)
                    if share <= _ZERO:
                        continue
                    direct *= share
                red, green, blue = red + direct * lamp[4], green + direct * lamp[5], blue + direct * lamp[6]
                if look32[11] > _ZERO:
                    # Blinn's highlight about the direction midway between the lamp and the eye.
                    h0, h1, h2 = t0 / away - ray[0] / length, t1 / away - ray[1] / length, t2 / away - ray[2] / length
                    middle = (h0 * n0 + h1 * n1 + h2 * n2) / np.sqrt(h0 * h0 + h1 * h1 + h2 * h2)
                    shine = look32[11] * max(middle, _ZERO) ** look32[12] * direct
                    shine_red += shine * lamp[4]
                    shine_green += shine * lamp[5]
                    shine_blue += shine * lamp[6]
            # (red, ...): irradiance, then light.
            red = colour[int(look[8])] * look32[5] * shade * red + shine_red + look32[13] * look32[5]
            green = colour[int(look[9])] * look32[6] * shade * green + shine_green + look32[13] * look32[6]
            blue = colour[int(look[10])] * look32[7] * shade * blue + shine_blue + look32[13] * look32[7]
            out[y >> 1, x >> 1, 0] += red * quarter
            out[y >> 1, x >> 1, 1] += green * quarter
            out[y >> 1, x >> 1, 2] += blue * quarter


@njit(nogil=True, cache=True, error_model="numpy")
def develop_into(out, light, gain, edges, guess):
    """`light` (N, 3) * `gain` (3,), clipped to 0..1, as the code whose lower edge in `edges` (256,) it reaches, uint8.

    `guess` (4097,): the code at the lower end of each of 4096 bins of 0..1, at most one below any code of the bin.
    """
    for i in range(len(light)):
        for k in range(3):
            value = min(max(light[i, k] * gain[k], _ZERO), _ONE)
            code = guess[int(value * np.float32(4096))]
            while code < 255 and value >= edges[code + 1]:
                code += 1
            out[i, k] = code


@njit(nogil=True, cache=True)
def roughen(level, grain, strength):
    """Multiply `level` (S, S, 3) in place by 1 + `strength` * `grain`, within 0.4 to 1.6; the result in 0.01 to 1."""
    one, low, high, least = np.float32(1), np.float32(0.4), np.float32(1.6), np.float32(0.01)
    for y in range(level.shape[0]):
        for x in range(level.shape[1]):
            factor = min(max(one + strength * grain[y, x], low), high)
            for k in range(3):
                level[y, x, k] = min(max(level[y, x, k] * factor, least), one)


@njit(nogil=True, cache=True)
def halve(level, half):
    """Means of 2x2 texels."""
    quarter = np.float32(0.25)
    for y in range(half.shape[0]):
        for x in range(half.shape[1]):
            for k in range(3):
                left = level[2 * y, 2 * x, k] + level[2 * y + 1, 2 * x, k]
                half[y, x, k] = (left + level[2 * y, 2 * x + 1, k] + level[2 * y + 1, 2 * x + 1, k]) * quarter
