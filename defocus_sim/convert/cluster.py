"""Shards by the workers of a dask.distributed cluster. The only file with dask."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import distributed
from distributed.comm.core import CommClosedError

from defocus_sim.convert.sample import BadFrame
from defocus_sim.convert.task import ShardTask, run_shard
from defocus_sim.errors import ConvertError


def run_on_cluster(
    tasks: Sequence[ShardTask],
    scheduler: str,
    announce: Callable[[str], None] | None,
    on_shard: Callable[[ShardTask], None],
    release: Callable[[], None],
) -> list[BadFrame]:
    """Do the tasks on the workers of `scheduler`; returns the frames that could not be used.

    `announce`: called with the link of the dashboard. `release`: called where it ends early, so that tasks elsewhere stop.
    """
    bad: list[BadFrame] = []
    with _connected(scheduler) as client:
        if announce is not None:
            announce(client.dashboard_link)
        # In one message the tasks of 230,000 frames are larger than a scheduler likes.
        futures = dict(zip(client.map(run_shard, tasks, pure=False, batch_size=1000), tasks, strict=True))
        try:
            for future in distributed.as_completed(futures):
                bad += _result(future)
                on_shard(futures[future])
        except BaseException:
            release()
            raise
        finally:
            client.cancel(list(futures), force=True)
    return bad


def _connected(scheduler: str) -> distributed.Client:
    # What it has to say comes as an error; its log would add tracebacks.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        return distributed.Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise ConvertError(f"no dask scheduler answers at {scheduler} ({error})") from error


def _result(future: Any) -> list[BadFrame]:
    try:
        found: list[BadFrame] = future.result()
    except distributed.KilledWorker as error:
        raise ConvertError(f"workers died again and again on one shard (is memory short?): {error}") from error
    except (distributed.CancelledError, CommClosedError) as error:
        raise ConvertError("the connection to the dask scheduler is lost") from error
    except ImportError as error:
        raise ConvertError(f"a worker lacks a package, install the same everywhere: {error}") from error
    except RuntimeError as error:
        # The scheduler, too, unpacks the tasks.
        if str(error).startswith("Error during deserialization"):
            raise ConvertError("the dask scheduler cannot load the tasks: it needs dfd-toolkit as well") from error
        raise
    return found
