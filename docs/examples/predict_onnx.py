"""Depth of a picture from an exported network: `python predict_onnx.py net.onnx picture.png` (needs onnxruntime)."""

import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
pixels = np.asarray(Image.open(sys.argv[2]).convert("RGB"), np.float32) / 255
names = [output.name for output in session.get_outputs()]
outputs = dict(zip(names, session.run(names, {"image": pixels.transpose(2, 0, 1)[None]}), strict=True))
depth = outputs["depth_m"][0, 0].astype(np.float64)  # (height, width) metres; outputs["aif"]: (1, 3, height, width)
height, width = depth.shape
print(f"{width}x{height}: depth {depth.mean():.3f} m, middle {depth[height // 2, width // 2]:.3f} m")
