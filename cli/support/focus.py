"""Depths to ask where to focus, from whatever holds some; and the word about a focus that lies inside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from defocus_sim.errors import SourceError, SourceMissingError
from defocus_sim.lens import Lens

if TYPE_CHECKING:
    from defocus_sim.shards.store import ShardStore

# Images, and pixels of each, that are enough for two digits of the bound.
MOST_IMAGES, MOST_PIXELS = 300, 8000
# Of the closing lines of a conversion, which is not to wait for them.
_FEW_IMAGES = 24
# A focus lies inside the depths where so many of the pixels are nearer and so many beyond, by this much at least.
_SHARE, _MARGIN = 0.05, 0.02


def depths_of(place: str, depth_scale: float | None = None, most: int = MOST_IMAGES) -> list[NDArray[np.float32]]:
    """Depth in metres (0 = hole) of up to `most` images, some thousand pixels of each, spread evenly.

    `place`: a shard store (path or URL), a labelled NYU-Depth v2 file (`.mat`), a depth file, or a folder of them or of
    pictures with their depth. `depth_scale`: metres per unit of integer depth. Raises errors of `defocus_sim`.
    """
    path = Path(place)
    if re.match(r"\w+://", place) or (path / "zarr.json").is_file():
        from defocus_sim.shards.store import open_store

        return depths_of_store(open_store(place), most)
    if not path.exists():
        raise SourceMissingError(f"{place} is not there: give a store, a depth file, or a folder of them")
    if path.suffix.lower() == ".mat":
        return _depths_of_nyu(path, most)
    return _depths_of_files(path, depth_scale, most)


def depths_of_store(store: ShardStore, most: int = MOST_IMAGES) -> list[NDArray[np.float32]]:
    """As `depths_of`, of every split of an open store."""
    every = [(name, k) for name in store.split_names for k in range(len(store.split(name)))]
    splits = {name: store.split(name) for name in store.split_names}
    chosen = _spread(every, most)
    return [_fewer(splits[name].read([k], fields=("depth_m",))["depth_m"][0]) for name, k in chosen]


def _depths_of_nyu(path: Path, most: int) -> list[NDArray[np.float32]]:
    from defocus_sim.datasets.nyu import NyuSource

    source = NyuSource(path=path, val_fraction=0.0)
    frames = _spread(range(len(source.samples())), most)
    with source.open() as reader:
        return [_fewer(reader.read(frame).depth_m) for frame in frames]


def _depths_of_files(path: Path, depth_scale: float | None, most: int) -> list[NDArray[np.float32]]:
    from defocus_sim.datasets.formats.images import DEPTH_SUFFIXES
    from defocus_sim.datasets.layouts.match import pairs_below
    from defocus_sim.datasets.layouts.walk import files_below
    from defocus_sim.datasets.pairing import read_depth_m

    files = [path]
    if path.is_dir():
        # Where pictures lie beside their depth, only names tell the two apart.
        files = [pair.depth for pair in pairs_below(path).pairs] or files_below(path, DEPTH_SUFFIXES).files
        if not files:
            raise SourceError(f"{path} holds neither a finished store nor a depth file")
    return [_fewer(read_depth_m(file, depth_scale)) for file in _spread(files, most)]


def _spread(items: Any, most: int) -> list[Any]:
    """At most `most` of `items`, evenly."""
    picked = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[k] for k in picked.tolist()]


def _fewer(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixels on an even grid, some thousand of them."""
    step = max(int((depth_m.size / MOST_PIXELS) ** 0.5), 1)
    return depth_m[::step, ::step].copy()


def focus_warning(store: ShardStore) -> list[str]:
    """A line where the one focus distance of simulated frames lies inside their depths, so that two depths share a blur."""
    from defocus_sim.pictures.focus_bound import DEFAULT_FOCUS_M, focus_bound

    manifest = store.manifest
    focus_m = {s for split in manifest.splits.values() for s in split.focus_distance_m}
    names = store.split_names
    if manifest.rendering.get("mode") == "measured" or len(focus_m) != 1 or not names:
        return []
    (focus,) = focus_m
    depths = depths_of_store(store, _FEW_IMAGES)
    flat = np.concatenate([depth[depth > 0] for depth in depths])
    if not flat.size:
        return []
    nearer, beyond = (float(np.mean(where)) for where in (flat < focus * (1 - _MARGIN), flat > focus * (1 + _MARGIN)))
    if min(nearer, beyond) < _SHARE:
        return []
    split = store.split(names[0])
    lens: Lens = split.blurred_lens(0)
    far = [distance for distance in DEFAULT_FOCUS_M if distance >= np.quantile(flat, 0.99)][:1]
    bound = focus_bound(depths, lens, split.blurred_hw(0)[1], focus_m=[focus, *far], errors=(0.1,))
    better = f", {bound.rmse_m[1, 0]:.2f} m with the focus at {far[0]:g} m" if far else ""
    return [
        f"  warning    the focus at {focus:g} m lies inside the depths ({nearer:.0%} of the pixels nearer, {beyond:.0%} "
        f"beyond): two depths share each blur. Its width, known to 10%, leaves a depth RMSE of "
        f"{bound.rmse_m[0, 0]:.2f} m{better}: dfd-prepare lens --bound {store.url}"
    ]
