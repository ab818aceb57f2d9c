"""Scores that are done, one JSON line each, so that an interrupted evaluation goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dfd_train.errors import EvaluationError
from dfd_train.evaluation.metrics import DepthSums, ImageScore, ImageSums
from dfd_train.evaluation.scoring import Profile, SampleScore


class ScoreJournal:
    """A file below a report's folder, until the report is written; each process of an evaluation has its own.

    Its name is a digest of everything the scores depend on, `asked`, so that other settings never meet it. `out`: the
    report's folder, None = nothing is kept. `rank`: of this process.
    """

    def __init__(self, out: str | None, asked: Mapping[str, object], rank: int = 0) -> None:
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        self._folder = None if out is None else Path(out)
        self._stem = f".scores-{digest}"
        self._own = f"{self._stem}.{rank}.jsonl"

    def _files(self) -> list[Path]:
        return [] if self._folder is None else sorted(self._folder.glob(f"{self._stem}.*.jsonl"))

    def read(self) -> dict[int, SampleScore]:
        """Scores of all processes by position; a last line that was cut off is left out, and off the file."""
        scores: dict[int, SampleScore] = {}
        for path in self._files():
            whole = path.read_text().rpartition("\n")[0]
            # A torn line must not be continued by the next score.
            path.write_text(whole + "\n" if whole else "")
            scores |= {score.position: score for score in map(_from_json, whole.splitlines())}
        return scores

    def append(self, score: SampleScore) -> None:
        """Keep one score. Raises `EvaluationError` where the folder cannot be written."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._folder / self._own, "a") as file:
                file.write(_to_json(score) + "\n")
        except OSError as error:
            raise EvaluationError(
                f"cannot write the report to {self._folder}: {error.strerror or error}; choose another --out"
            ) from error

    def remove(self) -> None:
        """The report is written: nothing is left to resume."""
        for path in self._files():
            path.unlink(missing_ok=True)


def _to_json(score: SampleScore) -> str:
    sides = [
        {"depth": one.depth and vars(one.depth), "image": one.image and vars(one.image)}
        for one in (score.predicted, score.untouched)
    ]
    profile = score.profile and [part.tolist() for part in score.profile]
    return json.dumps([score.position, score.predicted.name, *sides, profile])


def _from_json(line: str) -> SampleScore:
    position, name, predicted, untouched, profile = json.loads(line)
    first, second = (
        ImageScore(
            name=name,
            depth=side["depth"] and DepthSums(**side["depth"]),
            image=side["image"] and ImageSums(**side["image"]),
        )
        for side in (predicted, untouched)
    )
    return SampleScore(position, first, second, profile and Profile(*map(np.array, profile)))
