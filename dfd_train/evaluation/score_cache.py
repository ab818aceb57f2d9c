"""Scores that are done, one JSON line each, so that an interrupted evaluation goes on where it was."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from defocus_sim.errors import parse_json
from dfd_train.errors import EvaluationError
from dfd_train.evaluation.metrics import DepthSums, ImageScore, ImageSums
from dfd_train.evaluation.scoring import Profile, SampleScore
from dfd_train.evaluation.uncertainty import UncertaintySums
from dfd_train.files import write_atomically


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
        """Scores of all processes by position; lines that are not as they were written are left out, and off the file."""
        scores: dict[int, SampleScore] = {}
        for path in self._files():
            try:
                lines = path.read_bytes().split(b"\n")
                sound = [line for line in lines if _is_sound(line)]
                # A torn line must not be continued by the next score.
                write_atomically(path, b"".join(line + b"\n" for line in sound))
            except OSError as error:
                raise EvaluationError(f"{path} cannot be read: {error.strerror or error}; remove it") from error
            scores |= {score.position: score for score in map(_from_line, sound)}
        return scores

    def append(self, score: SampleScore) -> None:
        """Keep one score. Raises `EvaluationError` where the folder cannot be written."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._folder / self._own, "a") as file:
                file.write(_to_line(score) + "\n")
        except OSError as error:
            raise EvaluationError(
                f"cannot write the report to {self._folder}: {error.strerror or error}; choose another --out"
            ) from error

    def remove(self) -> None:
        """The report is written: nothing is left to resume."""
        for path in self._files():
            path.unlink(missing_ok=True)


def _is_sound(line: bytes) -> bool:
    checksum, _, content = line.partition(b" ")
    return checksum == b"%08x" % zlib.crc32(content) and bool(content)


def _to_line(score: SampleScore) -> str:
    """The score as JSON behind its checksum."""
    sides = [
        {"depth": one.depth and vars(one.depth), "image": one.image and vars(one.image)}
        for one in (score.predicted, score.untouched)
    ]
    profile = score.profile and [part.tolist() for part in score.profile]
    by_side = None if score.sides is None else score.sides.tolist()
    sure = score.uncertainty and [v.tolist() if isinstance(v, np.ndarray) else v for v in score.uncertainty]
    content = json.dumps([score.position, score.predicted.name, *sides, profile, by_side, sure])
    return f"{zlib.crc32(content.encode()):08x} {content}"


def _from_line(line: bytes) -> SampleScore:
    content = parse_json(line.partition(b" ")[2].decode())
    position, name, predicted, untouched, profile, by_side, sure = content
    first, second = (
        ImageScore(
            name=name,
            depth=side["depth"] and DepthSums(**side["depth"]),
            image=side["image"] and ImageSums(**side["image"]),
        )
        for side in (predicted, untouched)
    )
    return SampleScore(
        position,
        first,
        second,
        profile and Profile(*map(np.array, profile)),
        None if by_side is None else np.array(by_side),
        sure and UncertaintySums(*sure[:-3], *map(np.array, sure[-3:])),
    )
