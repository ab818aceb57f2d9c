"""Depth of a picture from an exported network: `python predict_onnx.py net.onnx picture.png` (needs onnxruntime).

A network for every lens, such as the one that comes along, is told the picture's: `... picture.png 1.7 7.2` is a focus
distance of 1.7 m and a circle of confusion of 7.2 px at infinity, f^2 / (N (S - f)) times the pixels per mm of the sensor.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
pixels = np.asarray(Image.open(sys.argv[2]).convert("RGB"), np.float32) / 255
names = [output.name for output in session.get_outputs()]
inputs = {"image": pixels.transpose(2, 0, 1)[None]}
if len(session.get_inputs()) == 2:
    inputs["lens"] = np.array([[float(sys.argv[3]), float(sys.argv[4]), 1]], np.float32)  # 1 = known, 0 = a guess
outputs = dict(zip(names, session.run(names, inputs), strict=True))
depth = outputs["depth_m"][0, 0].astype(np.float64)  # (height, width) metres; outputs["aif"]: (1, 3, height, width)
height, width = depth.shape
print(f"{width}x{height}: depth {depth.mean():.3f} m, middle {depth[height // 2, width // 2]:.3f} m")
