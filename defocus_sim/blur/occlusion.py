"""What a camera sees behind a depth edge and a photograph does not show: one hidden surface, guessed.

A blurred edge is looked past, a sharp edge hides part of what the blur behind it mixes. So behind every pixel within
reach of a jump in depth stands a second, hidden one, filled from the nearest surface that is farther away. Filling all
layers everywhere instead ruins rooms: most of what is hidden is never seen, and the fill bleeds into what is.
"""

from dataclasses import dataclass

import numpy as np

from defocus_sim.blur.edge_matting import mark_edges, split_edge_pixels
from defocus_sim.blur.layers import JUMP
from defocus_sim.kernels import njit

_SPLIT_PASSES = (
    3  # the first knows clean neighbours only, later ones the split neighbours too; 3 and 4 differ by 0.03 dB
)
_TAPS = 3  # a hidden colour is the mean of (2*_TAPS + 1)^2 samples of the farther surface
_DISTANCE_PER_STRIDE = 2.0  # ... which lie farther apart the deeper the pixel is hidden


@dataclass(frozen=True, kw_only=True)
class Surfaces:
    """The visible and the hidden surface of every pixel, and both of a pixel that a depth edge runs through.

    A pixel shows near_share*near + (1 - near_share)*far; behind the near part the far surface goes on, hidden.
    `near`, `far` (C,H,W) float32 colours; `near_share` (H,W) float32, 1 except in edge pixels; `near_from`, `far_from`
    (H,W) int32 the flat index of the pixel whose CoC the surface has, far_from = -1 where there is none.
    """

    near: np.ndarray
    far: np.ndarray
    near_share: np.ndarray
    near_from: np.ndarray
    far_from: np.ndarray


def find_surfaces(planes: np.ndarray, coc_px: np.ndarray, coordinate: np.ndarray) -> Surfaces:
    """The surfaces of (C,H,W) float32 planes; coc_px (H,W) float32, `coordinate` the same on the scale of the layers."""
    shape = coc_px.shape
    far = np.zeros_like(planes)
    far_from = np.full(shape, -1, np.int32)
    near_share = np.ones(shape, np.float32)
    near_from = np.arange(coc_px.size, dtype=np.int32).reshape(shape)
    edge = mark_edges(coordinate, JUMP)
    if not edge.any():
        return Surfaces(near=planes, far=far, near_share=near_share, near_from=near_from, far_from=far_from)
    near = planes.copy()
    _spread(coc_px, coordinate, edge, JUMP, far_from)
    split_edge_pixels(planes, coordinate, edge, JUMP, _SPLIT_PASSES, near, far, near_share, near_from, far_from)
    _fill(planes, coordinate, edge, JUMP, near_share, far_from, far)
    return Surfaces(near=near, far=far, near_share=near_share, near_from=near_from, far_from=far_from)


@njit(nogil=True, cache=True)
def _spread(coc, coordinate, edge, jump, far_from):
    """Give every pixel near an edge the nearest pixel of a farther surface: from the edges inwards, through a queue.

    A pixel that finds a nearer source queues again, so the order of visits does not matter much and ties are broken the
    same way every time.
    """
    height, width = coordinate.shape
    queue = np.empty(height * width, np.int32)
    waiting = np.zeros((height, width), np.bool_)
    count = 0
    for y in range(height):
        for x in range(width):
            if edge[y, x]:
                queue[count] = y * width + x
                waiting[y, x] = True
                count += 1
    head = 0
    while count > 0:
        y, x = divmod(queue[head], width)
        head = (head + 1) % len(queue)
        count -= 1
        waiting[y, x] = False
        for n in range(9):
            ny = y + n // 3 - 1
            nx = x + n % 3 - 1
            if n == 4 or ny < 0 or ny >= height or nx < 0 or nx >= width:
                continue
            better = n % 2 == 1 and edge[y, x] and _take(coc, coordinate, jump, far_from, ny, nx, y * width + x)
            if far_from[y, x] >= 0 and _take(coc, coordinate, jump, far_from, ny, nx, far_from[y, x]):
                better = True
            if better and not waiting[ny, nx]:
                queue[(head + count) % len(queue)] = ny * width + nx
                waiting[ny, nx] = True
                count += 1


@njit(nogil=True, cache=True)
def _take(coc, coordinate, jump, far_from, y, x, candidate):
    """Make `candidate` the source of (y, x) if it is farther away in depth, within reach, and nearer in the image."""
    width = coordinate.shape[1]
    qy, qx = divmod(candidate, width)
    if coordinate[qy, qx] - coordinate[y, x] <= jump:
        return False
    distance = (qy - y) ** 2 + (qx - x) ** 2
    # Beyond both radii nothing hidden is seen; a Gaussian's tail reaches a little farther than the disc.
    reach = 0.65 * (abs(coc[y, x]) + abs(coc[qy, qx])) + 2.0
    if distance > reach * reach:
        return False
    now = far_from[y, x]
    if now >= 0:
        py, px = divmod(now, width)
        if (py - y) ** 2 + (px - x) ** 2 <= distance:
            return False
    far_from[y, x] = candidate
    return True


@njit(nogil=True, cache=True)
def _fill(planes, coordinate, edge, jump, near_share, far_from, far):
    """Colour the hidden pixels by the farther surface around their source, the nearer to them the more (1/d^5).

    The window grows with the distance at a fixed number of samples: far behind the edge only a mean can be guessed. An
    edge pixel counts with the farther surface's part of it, if it could be split and lies on that side.
    """
    channels, height, width = planes.shape
    total = np.empty(channels, np.float32)
    for y in range(height):
        for x in range(width):
            if far_from[y, x] < 0 or near_share[y, x] < 1:
                continue
            qy, qx = divmod(far_from[y, x], width)
            distance = np.sqrt(float((qy - y) ** 2 + (qx - x) ** 2))
            stride = max(1.0, distance / _DISTANCE_PER_STRIDE)
            total[:] = 0.0
            weight = np.float32(0.0)
            for j in range(-_TAPS, _TAPS + 1):
                ty = qy + int(np.rint(j * stride))
                if ty < 0 or ty >= height:
                    continue
                for i in range(-_TAPS, _TAPS + 1):
                    tx = qx + int(np.rint(i * stride))
                    if tx < 0 or tx >= width or abs(coordinate[ty, tx] - coordinate[qy, qx]) > jump:
                        continue
                    split = near_share[ty, tx] < 0.5
                    if edge[ty, tx] and not split:
                        continue
                    square = np.float32((ty - y) ** 2 + (tx - x) ** 2)
                    w = np.float32(distance * distance) / square
                    w = w * w * np.sqrt(w)
                    weight += w
                    for c in range(channels):
                        total[c] += w * (far[c, ty, tx] if split else planes[c, ty, tx])
            for c in range(channels):
                far[c, y, x] = total[c] / weight if weight > 0 else planes[c, qy, qx]
