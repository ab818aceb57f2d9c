"""What is on disk of a conversion that is not finished: settings, markers of finished shards, skipped frames.

All of it lies in the folder `.markers` of the unfinished store and goes when the store gets its name.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from defocus_sim.convert.place import (
    locked_folder_of,
    remove_replaced,
    replace_folder,
    restore_replaced,
    set_aside,
    target_storage,
)
from defocus_sim.convert.plan import (
    ConversionSettings,
    blur_statistics,
    differing_settings,
    program_version,
    settings_digest,
)
from defocus_sim.convert.sample import BadFrame
from defocus_sim.convert.task import RUN, ShardResult, ShardTask, finished_shard, owner
from defocus_sim.errors import ConversionTakenOverError, ConvertError, parse_json
from defocus_sim.shards.manifest import Manifest, SplitManifest
from defocus_sim.shards.storage import TEMPORARY_SUFFIX, storage_at
from defocus_sim.shards.store import STATE_FOLDER, UNFINISHED_SUFFIX, open_store
from defocus_sim.shards.write import write_manifest, write_skeleton

SETTINGS = f"{STATE_FOLDER}/settings.json"
SKIPPED = f"{STATE_FOLDER}/skipped.json"
Results = list[tuple[ShardTask, ShardResult]]


class ConversionState:
    """The target of a conversion and its unfinished store.

    `place`: path or URL of the latter. `run`: identifies this attempt; it stands in the place while the attempt is at
    work, so that tasks of an earlier one, which may still run elsewhere, notice that they are no longer wanted.
    """

    def __init__(self, out: str | Path) -> None:
        self.final = target_storage(out)
        # An object store cannot rename: there the store is built in its final place.
        self.storage = storage_at(self.final.url + UNFINISHED_SUFFIX) if self.final.renames else self.final
        self.place = self.storage.url
        self.run = uuid.uuid4().hex
        self._owned = self._at_work = self._announced = self._replaces = False

    def check_target(self, *, resume: bool, overwrite: bool, can_resume: bool = True) -> None:
        """Raise `ConvertError` where the target is taken and neither option says what to do with it.

        `can_resume`: whether the command can go on with what another one of its kind left unfinished.
        """
        if resume and overwrite:
            raise ConvertError("resume and overwrite exclude each other: choose one")
        if Path(self.final.url).is_file():
            raise ConvertError(f"{self.final.url} is a file: choose another --out")
        if self.final.renames and Path(self.final.url).parent.is_dir():
            with locked_folder_of(self.final.url):
                restore_replaced(self.final)
        building, built = self.storage.sizes(), self.final.sizes()
        separate = self.storage is not self.final
        unfinished = bool(building) and (separate or "zarr.json" not in building)
        if built and "zarr.json" not in built and (separate or SETTINGS not in built):
            raise ConvertError(
                f"{self.final.url} exists and is not a shard store: it is left alone, choose another --out"
            )
        if "zarr.json" in built and not (resume or overwrite):
            raise ConvertError(f"{self.final.url} exists already: replace it with --overwrite, or choose another --out")
        if "zarr.json" in built and "train/depth_m/zarr.json" not in built:
            raise ConvertError(
                f"{self.final.url} is a Zarr store of another kind: it is left alone, choose another --out"
            )
        # A conversion killed at its very beginning leaves nothing outside of its state folder.
        begun = SETTINGS in building or all(name.startswith(STATE_FOLDER) for name in building)
        if unfinished and not begun and "zarr.json" not in building:
            raise ConvertError(f"{self.place} is not an unfinished conversion: it is left alone, move it away")
        if unfinished and not (resume or overwrite):
            go_on = "continue it with --resume, or begin" if can_resume else "begin"
            raise ConvertError(f"{self.place} holds an unfinished conversion: {go_on} anew with --overwrite")
        self._replaces = overwrite or bool(built)

    def is_finished(self) -> bool:
        """Whether a complete store is there, with or without its final name."""
        return "zarr.json" in self.storage.sizes() or (not self.storage.sizes() and "zarr.json" in self.final.sizes())

    def begin(self, description: dict[str, Any], *, resume: bool) -> list[BadFrame]:
        """Start anew, or check that the settings are those of before; returns the frames that are skipped already.

        Raises `ConvertError` naming the settings that changed.
        """
        sizes = self.storage.sizes()
        if not resume or SETTINGS not in sizes:
            self._owned = self._at_work = True
            aside = None
            with self._alone():
                if self.final.renames:
                    # By one rename: tasks of another attempt that are still at work write into what goes, not in here.
                    aside = set_aside(Path(self.place))
                else:
                    # The manifest goes first: from then on nothing opens the old store as data.
                    self.storage.remove("zarr.json")
                    self.storage.remove()
                self._announce(description)
            if aside is not None:
                storage_at(aside).remove()
            return []
        try:
            before = parse_json(self.storage.read(SETTINGS))
            skipped = [BadFrame(**bad) for bad in parse_json(self.storage.read(SKIPPED))] if SKIPPED in sizes else []
        except (ValueError, TypeError) as error:
            raise ConvertError(f"{self.place} cannot be resumed, its state is damaged: use --overwrite") from error
        differences = differing_settings(before, description)
        if differences:
            raise ConvertError(
                f"{self.place} was begun with other settings: {'; '.join(differences)}; restore them or use --overwrite"
            )
        self._owned = self._at_work = True
        with self._alone():
            self._announce()
        return skipped

    def _alone(self) -> Any:
        """No other command begins or ends at this place meanwhile; object stores have no such thing."""
        return locked_folder_of(self.place) if self.final.renames else nullcontext()

    def _announce(self, description: dict[str, Any] | None = None) -> None:
        if description is not None:
            self.storage.write(SETTINGS, json.dumps(description).encode())
        self.storage.write(RUN, self.run.encode())
        self._announced = True

    def check_owner(self) -> None:
        """Raise `ConversionTakenOverError` where another conversion has begun at this place since."""
        if owner(self.storage) != self.run:
            raise ConversionTakenOverError(f"another conversion has begun at {self.place}: it goes on, this one ends")

    @property
    def taken_over(self) -> bool:
        """Whether another conversion has begun at this place since."""
        try:
            return self._announced and owner(self.storage) not in (self.run, None)
        except OSError:
            return False

    def is_inside(self, path: str | bytes | None) -> bool:
        """Whether `path`, as an error of the system names it, lies in the place."""
        return isinstance(path, str) and Path(path).absolute().is_relative_to(Path(self.place).absolute())

    @property
    def is_gone(self) -> bool:
        """Whether the place is no longer this conversion's: another took it, ended there, or its folder was removed."""
        try:
            return owner(self.storage) != self.run
        except OSError:
            return False

    def release(self) -> None:
        """End this attempt: its tasks stop at their next look. Another's attempt is left alone."""
        if not self._at_work:
            return
        self._at_work = False
        try:
            found = owner(self.storage)
            self._owned = found == self.run or (found is None and not self._announced)
            if self._owned:
                self.storage.remove(RUN)
        except OSError:
            # The storage itself fails: the error that led here says more than a second one.
            self._owned = False

    def unfinished(self, tasks: Iterable[ShardTask]) -> list[ShardTask]:
        """The tasks that are still to be done."""
        sizes = self.storage.sizes()
        return [task for task in tasks if finished_shard(task, sizes) is None]

    def add_skipped(self, skipped: list[BadFrame], found: list[BadFrame]) -> list[BadFrame]:
        """Remember frames that cannot be used; returns all of them in the source's order.

        Of several reasons for one frame the same is kept whichever was found first.
        """
        ordered = sorted((*found, *skipped), key=lambda bad: (bad.frame, bad.reason))
        everything = list({bad.frame: bad for bad in ordered}.values())
        self.storage.write(SKIPPED, json.dumps([asdict(bad) for bad in everything]).encode())
        return everything

    def write_skeleton(
        self, counts: Mapping[str, int], settings: ConversionSettings, description: dict[str, Any]
    ) -> None:
        """The groups and arrays, when their final length is known."""
        height, width = description["size_hw"]
        write_skeleton(self.storage, counts, (height, width), settings.samples_per_shard, settings.compression)

    def results(self, tasks: Iterable[ShardTask]) -> Results:
        """What every task left. Raises `ConvertError` where one left nothing."""
        sizes, results = self.storage.sizes(), []
        for task in tasks:
            result = finished_shard(task, sizes)
            if result is None:
                raise ConvertError(f"shard {task.index} of {task.split} was not written: nothing is finalised")
            results.append((task, result))
        return results

    def write_manifest(self, manifest: Manifest) -> None:
        """From here on the store is complete."""
        write_manifest(self.storage, manifest)

    def publish(self, description: dict[str, Any]) -> None:
        """Give a complete store its name, in place of an earlier one, and remove what only the conversion needed.

        An earlier one gives way by a rename, is complete under one of two names at every moment, and is removed last.
        Raises `ConvertError` where the store was made with other settings, or the place is another conversion's by now.
        """
        with self._alone():
            if self._at_work:
                self.check_owner()
            self._give_name(description)
        if self.final.renames:
            remove_replaced(self.final)

    def _give_name(self, description: dict[str, Any]) -> None:
        sizes = self.storage.sizes()
        place = self.storage if "zarr.json" in sizes else self.final
        store = open_store(place.url)
        if store.manifest.settings != settings_digest(description):
            raise ConvertError(f"{place.url} is complete and was made with other settings: replace it with --overwrite")
        shard_names = {record.name for record in store.records()}
        for name in place.sizes():
            # Left by a killed worker, or a last shard that skipped frames made superfluous.
            if name.endswith(TEMPORARY_SUFFIX) or ("/c/" in name and name not in shard_names):
                place.remove(name)
        place.remove(STATE_FOLDER)
        self._at_work = False
        if place is self.final:
            return
        if not self._replaces and Path(self.final.url).exists():
            raise ConvertError(
                f"{self.final.url} was made by another conversion meanwhile: it is left alone, {self.place} is complete"
            )
        replace_folder(Path(self.place), Path(self.final.url))

    def clean_up(self, tasks: Iterable[ShardTask]) -> int:
        """After a failure: how many shards are finished; where none is, nothing of this attempt stays."""
        self.release()
        if not self._owned:
            return 0
        try:
            sizes = self.storage.sizes()
            kept = sum(finished_shard(task, sizes) is not None for task in tasks)
            state = {name for name in sizes if name.startswith(STATE_FOLDER) and not name.endswith(TEMPORARY_SUFFIX)}
            markers = state - {SETTINGS, SKIPPED, RUN}
            if RUN not in sizes and not markers and "zarr.json" not in sizes:
                self.storage.remove()
        except OSError:
            # The storage itself fails: the first error says more than a second one.
            return 0
        return kept


def finished_manifest(
    settings: ConversionSettings, description: dict[str, Any], results: Results, skipped: list[BadFrame]
) -> Manifest:
    """The manifest of a conversion whose tasks are all done."""
    splits = {}
    for split in dict.fromkeys(task.split for task, _ in results):
        shards = [(task, result) for task, result in results if task.split == split]
        samples = [sample for task, _ in shards for sample in task.samples]
        facts = [fact for _, result in shards for fact in result.samples]
        splits[split] = SplitManifest(
            names=tuple(sample.name for sample in samples),
            scenes=tuple(sample.scene for sample in samples),
            lens=(0,) * len(samples),
            focus_distance_m=tuple(fact["focus_distance_m"] for fact in facts),
            aperture_mm=tuple(fact["aperture_mm"] for fact in facts),
            shards=tuple(result.files for _, result in shards),
            measured=tuple(fact["found"] for fact in facts) if settings.measured else (),
            blurred_hw=tuple((fact["blurred_hw"][0], fact["blurred_hw"][1]) for fact in facts),
        )
    height, width = description["size_hw"]
    return Manifest(
        size_hw=(height, width),
        samples_per_shard=settings.samples_per_shard,
        compression=settings.compression,
        lenses=(description["lens"],),
        rendering=description["rendering"],
        source=description["source"],
        statistics=blur_statistics([fact for _, result in results for fact in result.samples]),
        splits=splits,
        skipped=tuple({"name": bad.name, "reason": bad.reason} for bad in skipped),
        created_by=program_version(),
        settings=settings_digest(description),
    )


def failed_write(place: str, error: BaseException) -> str:
    """What a storage's error says, with the place's name in it once."""
    # An object store's error names the place already.
    reason = str(getattr(error, "strerror", None) or error)
    return reason if place in reason else f"writing {place} failed: {reason}"
