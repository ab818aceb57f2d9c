"""What an evaluation is: its settings, what its checkpoints are called, and where its report goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from defocus_sim.units import size_text
from dfd_train.config.places import require_local
from dfd_train.errors import ConfigError
from dfd_train.evaluation.metrics import CONVENTIONS, NEAREST_M
from dfd_train.losses.ssim import WINDOW
from dfd_train.runs.checkpoint import FOLDER, split_place

NATIVE = "native"


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """One evaluation.

    `shards`: the store. `checkpoint`: a file, a run's folder (its best checkpoint, else the newest), or `RUN@last`.
    `split`: of the store. `lens`: file of the lens of samples of which the store does not say theirs. `size`: (height,
    width) that frames are resized to, "native", or None = as in training (native for a run with crops). `batch_size`:
    images read at once; it changes no digit. `limit`: only the first so many samples. `cap_m`: depths beyond are not
    scored; None = 70 m for Make3D (its C1; C2 is 80 m), 10 m for all else. `convention`: "per-image" or "pooled" (see
    `metrics.summarise`). `out`: folder for report.json, report.md, per_image.csv and predictions.png, None = no files; an
    evaluation that was interrupted goes on from there. `html`: also report.html. `pictures`: images shown. `device`,
    `prefetch` as in `TrainConfig`. `border_px`: pixels of the scored size at each side that the network sees and that are
    not scored.

    Raises `ConfigError` for an impossible value.
    """

    shards: str
    checkpoint: str
    split: str = "test"
    lens: str | None = None
    batch_size: int = 8
    size: tuple[int, int] | str | None = None
    limit: int | None = None
    cap_m: float | None = None
    convention: str = "per-image"
    out: str | None = None
    html: bool = True
    pictures: int = 5
    device: str = "auto"
    prefetch: int = 2
    border_px: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.size, str) and self.size != NATIVE:
            raise ConfigError(f"size={self.size!r} must be (height, width), {NATIVE!r} or None")
        if isinstance(self.size, tuple) and (len(self.size) != 2 or min(self.size) < 1):
            raise ConfigError(f"size={size_text(self.size)} must be at least 1 pixel a side")
        for name, least in (("batch_size", 1), ("limit", 1), ("pictures", 0), ("prefetch", 0), ("border_px", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value} must be at least {least}")
        if self.out is not None:
            require_local("out", self.out)
        if self.cap_m is not None and not self.cap_m > NEAREST_M:
            raise ConfigError(f"cap_m={self.cap_m} must exceed {NEAREST_M} m")
        if self.convention not in CONVENTIONS:
            raise ConfigError(f"convention={self.convention!r} must be one of {', '.join(CONVENTIONS)}")

    def check_border(self, hw: tuple[int, int], *, on_frames: bool) -> None:
        """Raise `ConfigError` where frames of `hw` (height, width) leave too little within `border_px` to score.

        `on_frames`: whether depth is scored on the frames, and not on grids of its own.
        """
        if self.border_px == 0:
            return
        if not on_frames:
            raise ConfigError(f"border_px={self.border_px} is of the frames: it cannot go with Make3D's own grids")
        most = (min(hw) - WINDOW) // 2
        if self.border_px > most:
            raise ConfigError(
                f"border_px={self.border_px} leaves too little of {size_text(hw)} to score: SSIM needs {WINDOW} px, so it "
                f"can be {max(most, 0)} at most"
            )


def default_out(checkpoints: Sequence[str]) -> Path:
    """Where a report of `checkpoints` goes if nobody says: into the run's folder, or of several beside the first run."""
    path, _ = split_place(checkpoints[0])
    if path.is_file() and path.parent.name != FOLDER:
        return path.with_name(f"{path.stem}-report")
    run = path.parent.parent if path.is_file() else path
    return run.absolute().parent / "comparison" if len(checkpoints) > 1 else run / "report"


def run_names(checkpoints: Sequence[str]) -> list[str]:
    """What to call each of `checkpoints`: its run's folder, or the file's own name; numbered where two are alike."""
    names: list[str] = []
    for text in checkpoints:
        path = Path(text)
        base = path.parent.parent.name if path.parent.name == "checkpoints" else path.stem if path.suffix else path.name
        name, number = base or "run", 2
        while name in names:
            name, number = f"{base} {number}", number + 1
        names.append(name)
    return names
