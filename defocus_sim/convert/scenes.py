"""Which scenes of several stores are one scene: by what the sources' files are, and by the pictures themselves.

How a source was divided into splits is no part of what it is: one folder prepared twice with other seeds is one folder.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from defocus_sim.errors import ConvertError
from defocus_sim.shards.manifest import SplitManifest, digest
from defocus_sim.shards.store import ShardStore

# What a source without files says of its splits and its length, but not of its frames.
# A longer lens sees the middle of the same drawn scene.
_NOT_THE_FRAMES = ("count", "test_fraction", "val_fraction", "field_of_view_deg", "focal_length_px")
Scene = tuple[int, str]


def scene_names(stores: Sequence[ShardStore]) -> list[dict[str, str]]:
    """For each store, the name in a joined store of each of its scenes; two names are alike where the scene is one.

    Scenes of two stores are one where their sources are of the same files (or the same drawn scenes) and call it alike,
    or where the same all-in-focus picture stands in both. A name that means two things has the number of its first
    store in front (`2/kitchen`). Reads every all-in-focus picture. Raises `ConvertError` naming the stores where a
    scene would stand in two splits, and what a damaged store raises.
    """
    groups = _Groups()
    splits: dict[Scene, str] = {}
    told: dict[Hashable, Scene] = {}
    for number, store in enumerate(stores):
        for split in store.split_names:
            samples = store.split(split)
            known: dict[str, set[bytes]] = defaultdict(set)
            for index, name in enumerate(samples.scenes):
                scene = number, name
                splits[scene] = split
                groups.add(scene)
                marks: list[Hashable] = []
                if not known[name]:
                    marks += _known_as(store.manifest.source, name, split, index)
                picture = _picture(samples.read([index], fields=("aif",))["aif"])
                if picture is not None and picture not in known[name]:
                    known[name].add(picture)
                    marks.append(picture)
                for mark in marks:
                    groups.join(scene, told.setdefault(mark, scene))
    _require_one_split(stores, groups, splits)
    return _named(stores, groups)


def _picture(aif: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes | None:
    """What tells a picture from others; None for one of a single colour, which may be of anything."""
    if (aif == aif[0, 0, 0]).all():
        return None
    return hashlib.sha256(aif.tobytes()).digest()


def _known_as(source: Mapping[str, Any], scene: str, split: str, index: int) -> Iterator[tuple[str, str]]:
    """(files, name) pairs by which a source knows the scene of sample `index` of a split; in a joined store its part."""
    if source.get("kind") != "merge" or not isinstance(source.get("parts"), list):
        yield _files(source), scene
        return
    parts = source["parts"]
    if all("samples" in part and "renamed" in part for part in parts):
        for part in parts:
            if index < (count := part["samples"].get(split, 0)):
                for own in part["renamed"].get(scene, [scene]):
                    yield from _known_as(part["source"], own, split, index)
                return
            index -= count
        return
    # Joined by a version that did not write what came from where. In a store joined twice a name may mean several scenes:
    # there only pictures tell.
    if any(part["source"].get("kind") == "merge" for part in parts):
        return
    number, _, bare = scene.partition("/")
    if number.isdigit() and bare and 1 <= int(number) <= len(parts):
        yield _files(parts[int(number) - 1]["source"]), bare
    for part in parts:
        yield _files(part["source"]), scene


def _files(source: Mapping[str, Any]) -> str:
    """What identifies the frames of a source, whatever was cut out of them and however they were divided."""
    files = {key: source[key] for key in ("file", "files") if isinstance(source.get(key), dict)}
    if files:
        # A file's name is where it lay, not what it is.
        what = {key: {k: v for k, v in facts.items() if k != "name"} for key, facts in files.items()}
    else:
        what = {key: value for key, value in source.items() if key not in _NOT_THE_FRAMES}
    return digest({"kind": source.get("kind"), **what})


def _require_one_split(stores: Sequence[ShardStore], groups: _Groups, splits: Mapping[Scene, str]) -> None:
    first: dict[Scene, Scene] = {}
    for scene, split in splits.items():
        other = first.setdefault(groups.root(scene), scene)
        if splits[other] != split:
            (here, name), (there, theirs) = other, scene
            alike = "" if name == theirs else f" (there called {theirs})"
            raise ConvertError(
                f"scene {name} would stand in {splits[other]} and in {split}: it is in {splits[other]} of "
                f"{stores[here].url} and in {split} of {stores[there].url}{alike}; keep it in one split"
            )


def _named(stores: Sequence[ShardStore], groups: _Groups) -> list[dict[str, str]]:
    """Names of the groups by their first member, with its store's number where the name is another group's, too."""
    own = [_scenes(store.manifest.splits) for store in stores]
    meanings: dict[str, set[Scene]] = defaultdict(set)
    firsts: dict[Scene, Scene] = {}
    for number, names in enumerate(own):
        for name in names:
            root = groups.root((number, name))
            first = firsts.setdefault(root, (number, name))
            meanings[first[1]].add(root)

    taken = {name for names in own for name in names}
    called = {
        root: name if len(meanings[name]) == 1 else numbered(name, number + 1, taken)
        for root, (number, name) in firsts.items()
    }
    return [{name: called[groups.root((number, name))] for name in names} for number, names in enumerate(own)]


def numbered(name: str, number: int, taken: set[str]) -> str:
    """`name` with a store's number in front, once or as often as it takes to be none of `taken`, to which it is added."""
    while name in taken:
        name = f"{number}/{name}"
    taken.add(name)
    return name


def _scenes(splits: Mapping[str, SplitManifest]) -> list[str]:
    return list(dict.fromkeys(name for split in splits.values() for name in split.scenes))


class _Groups:
    """Disjoint sets of scenes."""

    def __init__(self) -> None:
        self._above: dict[Scene, Scene] = {}

    def add(self, scene: Scene) -> None:
        self._above.setdefault(scene, scene)

    def root(self, scene: Scene) -> Scene:
        while self._above[scene] != scene:
            self._above[scene] = scene = self._above[self._above[scene]]
        return scene

    def join(self, one: Scene, other: Scene) -> None:
        self._above[self.root(one)] = self.root(other)
