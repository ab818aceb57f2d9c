"""Pixels that a depth edge runs through hold two surfaces, though their depth names one: split them again.

Left whole, such a pixel is blurred (or kept sharp) in the wrong layer together with the other surface's colour, which
shows as a thin line along every edge, and it taints the guess of what is hidden there. How much the nearer surface
covers is estimated from the shape of the edge and from the colours on its two sides, each weighted by its certainty:
least squares of one unknown. Against traced truth the split is worth 1 to 7 dB at edges (disc).
"""

import numpy as np

from defocus_sim.kernels import njit

_WINDOW = 3  # the two surfaces' own colours are taken from pixels up to this far away
# Coverage of an edge pixel from the shape of the edge: 0.5 + 2.9*(share of nearer pixels under a Gaussian of variance 2
# px^2 - 0.5), fitted to random straight and curved edges (radius >= 10 px); the error's variance is 0.01.
_SHAPE_GAIN = 2.9
_SHAPE_VARIANCE = 0.01
_COLOUR_VARIANCE = 1e-4  # least variance of a surface's colour: quantisation and noise of a photograph


@njit(nogil=True, cache=True)
def mark_edges(coordinate, jump):
    """(H,W) bool: has the pixel a neighbour (of four) more than `jump` layers nearer or farther?"""
    height, width = coordinate.shape
    edge = np.zeros((height, width), np.bool_)
    for y in range(height):
        for x in range(width):
            here = coordinate[y, x]
            if x + 1 < width and abs(coordinate[y, x + 1] - here) > jump:
                edge[y, x] = True
                edge[y, x + 1] = True
            if y + 1 < height and abs(coordinate[y + 1, x] - here) > jump:
                edge[y, x] = True
                edge[y + 1, x] = True
    return edge


@njit(nogil=True, cache=True)
def split_edge_pixels(planes, coordinate, edge, jump, passes, near, far, near_share, near_from, far_from):
    """Split every edge pixel that has both surfaces around it into near_share*near + (1 - near_share)*far.

    planes (C,H,W) float32, coordinate (H,W) float32, edge (H,W) bool. Writes, at those pixels only, what
    `occlusion.Surfaces` names. Both colours stay within the range of the pixels around, and mix to the pixel's own where
    that allows it.
    """
    channels, height, width = planes.shape
    old_near = np.empty_like(planes)
    old_far = np.empty_like(planes)
    old_share = np.ones((height, width), np.float32)
    mean = np.empty((2, channels))
    low = np.empty(channels)
    high = np.empty(channels)
    for _ in range(passes):
        for y in range(height):
            for x in range(width):
                if not edge[y, x]:
                    continue
                other = _across(coordinate, jump, y, x)
                if other < 0:
                    continue
                here = y * width + x
                oy, ox = divmod(other, width)
                nearer_here = coordinate[y, x] < coordinate[oy, ox]
                z_near = min(coordinate[y, x], coordinate[oy, ox])
                z_far = max(coordinate[y, x], coordinate[oy, ox])
                for c in range(channels):
                    low[c] = planes[c, y, x]
                    high[c] = planes[c, y, x]
                colours = (planes, old_near, old_far, old_share)
                variance = _gather_sides(colours, coordinate, edge, jump, z_near, z_far, y, x, mean, low, high)
                if variance < 0:
                    continue
                contrast = 0.0
                along = 0.0
                for c in range(channels):
                    contrast += (mean[0, c] - mean[1, c]) ** 2
                    along += (planes[c, y, x] - mean[1, c]) * (mean[0, c] - mean[1, c])
                guess = _coverage_by_shape(coordinate, 0.5 * (z_near + z_far), y, x)
                share = (along / variance + guess / _SHAPE_VARIANCE) / (contrast / variance + 1.0 / _SHAPE_VARIANCE)
                # The pixel's depth is that of its centre, so the surface it names covers at least half of it.
                share = min(max(share, 0.5), 1.0) if nearer_here else min(max(share, 0.0), 0.5)
                near_share[y, x] = share
                near_from[y, x] = here if nearer_here else other
                far_from[y, x] = other if nearer_here else here
                squares = share * share + (1.0 - share) * (1.0 - share)
                for c in range(channels):
                    rest = (planes[c, y, x] - share * mean[0, c] - (1.0 - share) * mean[1, c]) / squares
                    near[c, y, x] = min(max(mean[0, c] + share * rest, low[c]), high[c])
                    far[c, y, x] = min(max(mean[1, c] + (1.0 - share) * rest, low[c]), high[c])
        # A pass reads what the one before it wrote, so the result does not depend on the direction of the scan.
        for y in range(height):
            for x in range(width):
                if edge[y, x]:
                    old_share[y, x] = near_share[y, x]
                    for c in range(channels):
                        old_near[c, y, x] = near[c, y, x]
                        old_far[c, y, x] = far[c, y, x]


@njit(nogil=True, cache=True)
def _gather_sides(colours, coordinate, edge, jump, z_near, z_far, y, x, mean, low, high):
    """Mean colour of each surface around (y, x), weights 1/d^4, into mean (2,C); low and high (C,) take in the range.

    Returns the variance of the colours about their surface's mean, or -1 where one of the surfaces has no pixel.
    """
    planes, old_near, old_far, old_share = colours
    channels, height, width = planes.shape
    mean[:] = 0.0
    weight_near = 0.0
    weight_far = 0.0
    squares = 0.0
    for ty in range(max(y - _WINDOW, 0), min(y + _WINDOW + 1, height)):
        for tx in range(max(x - _WINDOW, 0), min(x + _WINDOW + 1, width)):
            if ty == y and tx == x:
                continue
            side = -1
            if abs(coordinate[ty, tx] - z_near) <= jump:
                side = 0
            elif abs(coordinate[ty, tx] - z_far) <= jump:
                side = 1
            share = old_share[ty, tx]
            if side < 0 or (edge[ty, tx] and share == 1):
                continue
            w = 1.0 / ((ty - y) ** 2 + (tx - x) ** 2) ** 2
            if side == 0:
                weight_near += w
            else:
                weight_far += w
            for c in range(channels):
                value = float(planes[c, ty, tx])
                if share < 1:
                    value = float(old_near[c, ty, tx] if share >= 0.5 else old_far[c, ty, tx])
                mean[side, c] += w * value
                squares += w * value * value
                low[c] = min(low[c], value)
                high[c] = max(high[c], value)
    if weight_near == 0 or weight_far == 0:
        return -1.0
    for c in range(channels):
        mean[0, c] /= weight_near
        mean[1, c] /= weight_far
        squares -= weight_near * mean[0, c] ** 2 + weight_far * mean[1, c] ** 2
    return max(squares / ((weight_near + weight_far) * channels), _COLOUR_VARIANCE)


@njit(nogil=True, cache=True)
def _coverage_by_shape(coordinate, middle, y, x):
    """How much the nearer surface covers of an edge pixel by the shape of the edge, unclipped."""
    height, width = coordinate.shape
    nearer = 0.0
    total = 0.0
    for ty in range(max(y - _WINDOW, 0), min(y + _WINDOW + 1, height)):
        for tx in range(max(x - _WINDOW, 0), min(x + _WINDOW + 1, width)):
            w = np.exp(-((ty - y) ** 2 + (tx - x) ** 2) / 4.0)
            total += w
            if coordinate[ty, tx] < middle:
                nearer += w
    return 0.5 + _SHAPE_GAIN * (nearer / total - 0.5)


@njit(nogil=True, cache=True)
def _across(coordinate, jump, y, x):
    """The neighbour (of four) beyond the edge at a pixel, as flat index; -1 if the pixel lies between two edges."""
    height, width = coordinate.shape
    best = -1
    largest = 0.0
    nearer = False
    farther = False
    for n in range(4):
        ny = y + (n == 0) - (n == 1)
        nx = x + (n == 2) - (n == 3)
        if ny < 0 or ny >= height or nx < 0 or nx >= width:
            continue
        step = coordinate[ny, nx] - coordinate[y, x]
        farther = farther or step > jump
        nearer = nearer or step < -jump
        if abs(step) > max(jump, largest):
            largest = abs(step)
            best = ny * width + nx
    return -1 if nearer and farther else best
