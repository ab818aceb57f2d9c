"""A source to a finished shard store: plan, one idempotent dask task per shard, finalise. The only file with dask.

The store is built in `OUT.partial` and becomes `OUT` by one rename, so `OUT` is either absent, or the earlier store, or
complete. Every finished shard leaves a marker with the sizes and checksums of its files; resuming trusts markers only.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed

from defocus_sim.conversion_plan import (
    ConversionSettings,
    blur_statistics,
    differing_settings,
    plan_samples,
    program_version,
)
from defocus_sim.errors import ConversionInterruptedError, ConvertError, DefocusSimError, ShardError
from defocus_sim.shard_task import MARKERS, WATCHERS, ShardResult, ShardTask, finished_shard, run_shard
from defocus_sim.shards.manifest import Manifest, SplitManifest, digest
from defocus_sim.shards.plan import plan_shards
from defocus_sim.shards.read import ShardStore, open_store
from defocus_sim.shards.write import PARTIAL_SUFFIX, write_bytes, write_manifest, write_skeleton

Progress = Callable[[int, int], None]
_SETTINGS = f"{MARKERS}/settings.json"


@dataclass(frozen=True)
class Conversion:
    """A finished conversion: the open store and the seconds it took."""

    store: ShardStore
    seconds: float


def convert(
    settings: ConversionSettings,
    out: str | Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> Conversion:
    """Write the triples of `settings` as a shard store at `out`.

    `workers`: threads (default: one a core). `scheduler`: address of a dask.distributed scheduler whose workers see the
    same paths, instead. `resume`: continue an unfinished conversion of the same settings. `overwrite`: replace a store
    (the old one stays until the new one is complete). `on_progress(done, total)`: called from worker threads.

    Raises `ConvertError` (the target, changed settings, a failed write), `ConversionInterruptedError`, and whatever the
    source, the lens or the blur find wrong with their input; before the first shard is complete nothing is left behind.
    """
    started = time.monotonic()
    out = Path(out)
    _check_target(out, resume=resume, overwrite=overwrite)
    description = settings.to_json()
    planned = plan_samples(settings.source.samples(), settings.lenses)
    if resume and out.exists():
        return Conversion(_same_store(out, description), time.monotonic() - started)
    root = out.with_name(out.name + PARTIAL_SUFFIX)
    token = uuid.uuid4().hex
    tasks = [
        ShardTask(
            settings=settings, root=root, split=split, index=r.index, samples=samples[r.start : r.stop], token=token
        )
        for split, samples in planned.items()
        for r in plan_shards(len(samples), settings.samples_per_shard)
    ]
    try:
        if resume and (root / "zarr.json").is_file():
            # Stopped between the manifest and the rename: the store is complete and only wants its name.
            _publish(root, out, description)
            return Conversion(open_store(out), time.monotonic() - started)
        if not resume or not root.exists():
            _begin(root, description, {split: len(samples) for split, samples in planned.items()}, settings)
        else:
            _check_settings(root, description)
        todo = [task for task in tasks if finished_shard(task) is None]
        total, left = (sum(len(task.samples) for task in some) for some in (tasks, todo))
        _run(todo, workers, scheduler, _Progress(total - left, total, on_progress))
        _finalise(root, tasks, description, settings)
        _publish(root, out, description)
    except (DefocusSimError, OSError, KeyboardInterrupt) as error:
        raise _explain(error, root, tasks) from error
    return Conversion(open_store(out), time.monotonic() - started)


def _check_target(out: Path, *, resume: bool, overwrite: bool) -> None:
    root = out.with_name(out.name + PARTIAL_SUFFIX)
    if resume and overwrite:
        raise ConvertError("resume and overwrite exclude each other: choose one")
    if out.exists():
        if not (resume or overwrite):
            raise ConvertError(f"{out} exists already: replace it with --overwrite, or choose another --out")
        try:
            open_store(out)
        except ShardError as error:
            # A damaged store may be replaced, a folder of anything else may not.
            if not (out / "train" / "depth_m" / "zarr.json").is_file():
                raise ConvertError(
                    f"{out} exists and is not a shard store: it is left alone, choose another --out"
                ) from error
    if root.exists() and not (resume or overwrite):
        raise ConvertError(
            f"{root} holds an unfinished conversion: continue it with --resume, or begin anew with --overwrite"
        )
    if root.exists() and overwrite and not (root / _SETTINGS).is_file():
        raise ConvertError(f"{root} is not an unfinished conversion: it is left alone, move it away")


def _same_store(out: Path, description: dict[str, Any]) -> ShardStore:
    store = open_store(out)
    if store.manifest.settings != digest(description):
        raise ConvertError(f"{out} is complete and was made with other settings: replace it with --overwrite")
    return store


def _check_settings(root: Path, description: dict[str, Any]) -> None:
    try:
        before = json.loads((root / _SETTINGS).read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise ConvertError(f"{root} cannot be resumed, its settings are lost: begin anew with --overwrite") from error
    differences = differing_settings(before, description)
    if differences:
        raise ConvertError(
            f"{root} was begun with other settings: {'; '.join(differences)}; restore them or use --overwrite"
        )


def _begin(root: Path, description: dict[str, Any], counts: dict[str, int], settings: ConversionSettings) -> None:
    if root.exists():
        shutil.rmtree(root)
    write_bytes(root / _SETTINGS, json.dumps(description).encode())
    height, width = description["size_hw"]
    write_skeleton(root, counts, (height, width), settings.samples_per_shard, settings.compression)


class _Progress:
    """Counts samples as tasks finish them; `stop` tells the tasks of this process to end at their next sample."""

    def __init__(self, done: int, total: int, on_progress: Progress | None) -> None:
        self._done, self._total, self._on_progress = done, total, on_progress
        self._lock, self.stop = threading.Lock(), threading.Event()
        self.advance(0)

    def advance(self, samples: int) -> bool:
        """`samples` more are done; false where it is time to stop."""
        with self._lock:
            self._done += samples
            if self._on_progress is not None:
                self._on_progress(self._done, self._total)
        return not self.stop.is_set()


def _run(tasks: list[ShardTask], workers: int | None, scheduler: str | None, progress: _Progress) -> None:
    if not tasks:
        return
    token = tasks[0].token
    if scheduler is None:
        WATCHERS[token] = lambda: progress.advance(1)
    try:
        with _client(workers, scheduler) as client:
            futures = dict(zip(client.map(run_shard, tasks, pure=False), tasks, strict=True))
            try:
                for future in distributed.as_completed(futures):
                    future.result()
                    if scheduler is not None:
                        progress.advance(len(futures[future].samples))
            finally:
                # On an error or an interrupt the running tasks stop at their next sample and clean up after themselves.
                progress.stop.set()
                client.cancel(list(futures))
    finally:
        # Only now: a task that no longer found its watcher would not know that it is to stop.
        WATCHERS.pop(token, None)


@contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[distributed.Client]:
    """A client of the given scheduler, or of threads of this process: the kernels and codecs release the GIL."""
    if scheduler is not None:
        try:
            client = distributed.Client(scheduler, timeout=10)
        except (OSError, ValueError) as error:
            raise ConvertError(f"no dask scheduler answers at {scheduler} ({error})") from error
        with client:
            yield client
        return
    threads = workers or len(os.sched_getaffinity(0))
    cluster = distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=threads,
        processes=False,
        dashboard_address=None,
        memory_limit=0,
        silence_logs=logging.CRITICAL,
    )
    with cluster, distributed.Client(cluster) as client:
        yield client


def _finalise(root: Path, tasks: list[ShardTask], description: dict[str, Any], settings: ConversionSettings) -> None:
    results: dict[str, list[tuple[ShardTask, ShardResult]]] = {}
    for task in tasks:
        result = finished_shard(task)
        if result is None:
            raise ConvertError(f"shard {task.index} of {task.split} was not written: nothing is finalised")
        results.setdefault(task.split, []).append((task, result))
    splits = {}
    for split, shards in results.items():
        samples = [sample for task, _ in shards for sample in task.samples]
        facts = [fact for _, result in shards for fact in result.samples]
        splits[split] = SplitManifest(
            names=tuple(sample.name for sample in samples),
            scenes=tuple(sample.scene for sample in samples),
            focus_distance_m=tuple(fact["focus_distance_m"] for fact in facts),
            aperture_mm=tuple(fact["aperture_mm"] for fact in facts),
            shards=tuple(result.files for _, result in shards),
        )
    height, width = description["size_hw"]
    manifest = Manifest(
        size_hw=(height, width),
        samples_per_shard=settings.samples_per_shard,
        compression=settings.compression,
        lens=description["lens"],
        rendering=description["rendering"],
        source=description["source"],
        statistics=blur_statistics([fact for shards in results.values() for _, r in shards for fact in r.samples]),
        splits=splits,
        created_by=program_version(),
        settings=digest(description),
    )
    write_manifest(root, manifest)


def _publish(root: Path, out: Path, description: dict[str, Any]) -> None:
    """Give a complete store its name, in place of an earlier one."""
    _same_store(root, description)
    shutil.rmtree(root / MARKERS, ignore_errors=True)
    if out.exists():
        shutil.rmtree(out)
    root.replace(out)


def _explain(error: BaseException, root: Path, tasks: list[ShardTask]) -> DefocusSimError:
    """The error to raise, with what is left and how to go on; an attempt that finished no shard leaves nothing."""
    interrupted = isinstance(error, KeyboardInterrupt | ConversionInterruptedError)
    kept = sum(finished_shard(task) is not None for task in tasks)
    if kept == 0 and (root / _SETTINGS).is_file():
        shutil.rmtree(root, ignore_errors=True)
    rest = f"; {kept} of {len(tasks)} shards are kept, continue with --resume" if kept else ""
    if interrupted:
        return ConversionInterruptedError(f"interrupted{rest or '; nothing is left behind'}")
    if isinstance(error, OSError):
        return ConvertError(f"writing {root} failed: {error.strerror or error}{rest}")
    if isinstance(error, DefocusSimError) and rest and not isinstance(error, ConvertError):
        return type(error)(f"{error}{rest}")
    return error if isinstance(error, DefocusSimError) else ConvertError(str(error))
