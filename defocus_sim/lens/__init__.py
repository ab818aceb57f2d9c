"""The camera: signed circle of confusion (CoC) in metres and pixels, blur sigma, presets. Nothing but arithmetic.

Thin lens (Nazir et al. 2023, eq. 8, with the lens-to-sensor distance spelled out): a point at depth x, seen by a lens of
focal length F and entrance pupil D that is focused at S, is imaged to a disc of diameter

    coc = D * s/S * (x - S)/x          s = F*S/(S - F)   (lens-to-sensor distance)

which is signed here: negative nearer than the focus distance, positive beyond it. In pixels the diameter is coc / pitch,
so only D, S and s/pitch, the lens-to-sensor distance *in pixels*, matter. `sigma = |coc| / 4`: a uniform disc of diameter
d has a standard deviation of exactly d/4 along each axis. A real lens also blurs a little where it is in focus; the two
add as variances.
"""

from defocus_sim.lens.coc import (
    coc_at_infinity_px,
    coc_diameter_m,
    coc_diameter_px,
    coc_limit_px,
    depth_of_field_m,
    nearest_usable_m,
    sigma_px,
)
from defocus_sim.lens.presets import PRESET_ALIASES, PRESETS
from defocus_sim.lens.thin_lens import NO_CAP, Lens

__all__ = [
    "NO_CAP",
    "PRESETS",
    "PRESET_ALIASES",
    "Lens",
    "coc_at_infinity_px",
    "coc_diameter_m",
    "coc_diameter_px",
    "coc_limit_px",
    "depth_of_field_m",
    "nearest_usable_m",
    "sigma_px",
]
