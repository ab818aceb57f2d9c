"""A picture and its depth as a point cloud: binary PLY, as MeshLab, CloudCompare and Blender read it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfd_train.prediction.results import to_eight_bit

# Beyond this a viewer on a laptop no longer turns smoothly.
MOST_POINTS = 2_000_000


def ply_bytes(picture: NDArray[np.generic], depth_m: NDArray[np.float32], focal_px: float) -> bytes:
    """`picture` (H, W[, 3]) and `depth_m` (H, W) z-depth in metres, seen with a lens-to-sensor distance of `focal_px`.

    Points x to the right, y upwards, z towards the viewer, in metres (the camera looks along -z from the origin through
    the picture's middle): x = (u - W/2) z / focal_px. Colours sRGB, 8 bit. Every k-th row and column is taken so that there
    are at most 2,000,000; points that are not finite or at 65.535 m and beyond, the depth map's end, are left out.
    """
    height, width = depth_m.shape
    step = max(1, int(np.ceil(np.sqrt(height * width / MOST_POINTS))))
    rows, columns = np.mgrid[0:height:step, 0:width:step]
    depth = depth_m[::step, ::step].astype(np.float64)
    colours = to_eight_bit(picture)[::step, ::step]
    keep = np.isfinite(depth) & (depth > 0) & (depth < 65.535)
    points = np.empty(
        int(keep.sum()),
        [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")],
    )
    z = depth[keep]
    points["x"] = (columns[keep] + 0.5 - width / 2) * z / focal_px
    points["y"] = -(rows[keep] + 0.5 - height / 2) * z / focal_px
    points["z"] = -z
    for channel, name in enumerate(("red", "green", "blue")):
        points[name] = colours[keep][:, channel]
    kinds = {"x": "float", "y": "float", "z": "float", "red": "uchar", "green": "uchar", "blue": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property {kind} {name}" for name, kind in kinds.items()]
    return ("\n".join([*header, "end_header"]) + "\n").encode(errors="backslashreplace") + points.tobytes()
