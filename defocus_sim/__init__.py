"""All-in-focus image + metric depth -> physically right defocus, and shards of (defocused, all-in-focus, depth) triples.

This package never imports torch. `Lens` says what the camera is, `defocus` applies it to arrays, `datasets` reads RGB-D
collections, `shards` is the format on disk and `convert` ties them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from defocus_sim.blur.light import SensorNoise
from defocus_sim.errors import DefocusSimError
from defocus_sim.lens import Lens

if TYPE_CHECKING:
    from defocus_sim.simulate import defocus

__all__ = ["DefocusSimError", "Lens", "SensorNoise", "defocus"]


def __getattr__(name: str) -> Any:
    # Numba takes half a second to import; whoever only wants a lens or a shard does not wait for it.
    if name == "defocus":
        from defocus_sim.simulate import defocus

        return defocus
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
