"""`njit` for this package's kernels, and where they are kept compiled: keyed by all their sources together.

Numba keeps a compiled kernel beside its file and looks at that file alone, not at the functions and constants that the
kernel took from others: an edit there would leave old code in use. Here the folder is named after the content of every
kernel source and the versions of numba and LLVM, so that no compiled kernel outlives an edit; numba itself tells
processors apart. Kernels of other packages in the process are left as they are.

Where kernels are compiled, not loaded, it is said what is waited for, as a warning of the logger `defocus_sim.kernels`.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import caching, event

_PACKAGE = Path(__file__).parent
# Where kernels are, and what they are made of.
_SOURCES = ("kernels.py", "blur/**/*.py", "datasets/synthetic/*.py")
# What is waited for where kernels of a folder are compiled, and the seconds that all of them take on an idle core.
_WAITS = {"blur": ("the blur", 20), "datasets": ("the procedural scenes", 8)}
_TEMPORARY = "defocus_sim-kernels-"
# A few small kernels more for another type of array are not worth a word.
_SILENT_S = 0.25


def njit(*signature: Any, cache: bool = False, **options: Any) -> Callable[..., Any]:
    """`numba.njit`; with `cache` the compiled kernel is kept, as long as there is a place for it."""
    options["cache"] = cache and folder() is not None
    decorate: Callable[..., Any] = numba.njit(*signature, **options)
    return decorate


@functools.cache
def folder() -> Path | None:
    """The folder of this version's compiled kernels, made where it is not there; None = they are compiled in memory.

    The first of these that can be written: `$NUMBA_CACHE_DIR`, the package's own `__pycache__`, the user's cache folder, a
    temporary folder of this process (with one note, since the next process compiles again).
    """
    if not hasattr(caching, "CacheImpl") or not hasattr(caching.CacheImpl, "_locator_classes"):
        logging.getLogger(__name__).warning("this numba keeps no kernels of ours: they are compiled for each process")
        return None
    name = f"kernels-{_digest()}"
    for root in _roots():
        place = root / name
        try:
            place.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=place).close()
        except OSError:
            continue
        _forget_others(place)
        _keep_in(place)
        return place
    temporary = None
    with suppress(OSError):
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
    where = "in memory" if temporary is None else f"into {temporary}"
    logging.getLogger(__name__).warning(
        f"note: no folder for compiled kernels can be written: compiling {where}, for this process only; "
        f"NUMBA_CACHE_DIR names a lasting place"
    )
    if temporary is not None:
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        _keep_in(temporary)
    return temporary


def _roots() -> Iterator[Path]:
    if os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(os.environ["NUMBA_CACHE_DIR"]) / "defocus_sim"
    yield _PACKAGE / "__pycache__"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if os.path.isabs(home):
        yield Path(home) / "defocus_sim"


@functools.cache
def _digest() -> str:
    content = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for path in sorted({path for pattern in _SOURCES for path in _PACKAGE.glob(pattern)}):
        content.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:16]


def _forget_others(place: Path) -> None:
    """Remove what earlier sources left in the package's own folder; elsewhere other versions may share the place."""
    if place.parent == _PACKAGE / "__pycache__":
        for other in place.parent.glob("kernels-*"):
            if other != place:
                shutil.rmtree(other, ignore_errors=True)


def _keep_in(place: Path) -> None:
    """Have numba look for this package's kernels in `place`, and for all others where it always does."""

    class Locator:
        def __init__(self, lineno: int, where: Path) -> None:
            self._lineno, self._where = lineno, where

        def ensure_cache_path(self) -> None:
            self._where.mkdir(parents=True, exist_ok=True)

        def get_cache_path(self) -> str:
            return str(self._where)

        def get_source_stamp(self) -> str:
            return _digest()

        def get_disambiguator(self) -> str:
            return str(self._lineno)

        @classmethod
        def from_function(cls, py_func: Any, py_file: str) -> Locator | None:
            path = Path(py_file).absolute()
            if not path.is_relative_to(_PACKAGE):
                return None
            room = "-".join(path.relative_to(_PACKAGE).parent.parts) or "top"
            own = cls(py_func.__code__.co_firstlineno, place / room)
            own.ensure_cache_path()
            return own

    caching.CacheImpl._locator_classes = [Locator, *caching.CacheImpl._locator_classes]


class _Announcer(event.Listener):
    """Says once for each kind of kernel that it is being compiled, as soon as that takes a while."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._depth, self._began, self._seconds = 0, 0.0, 0.0
        self._timer = threading.Timer(0, self._say)
        self.waits: tuple[str, int] | None = None

    # Numba compiles one kernel at a time, and within it those that it calls.
    def on_start(self, event: event.Event) -> None:
        if self._depth == 0:
            path = Path(event.data["dispatcher"].py_func.__code__.co_filename)
            if path.is_relative_to(_PACKAGE):
                what, seconds = self.waits or _WAITS.get(path.relative_to(_PACKAGE).parts[0], ("kernels", 1))
                self._timer = threading.Timer(max(_SILENT_S - self._seconds, 0), self._say, (what, seconds))
                self._timer.daemon = True
                self._timer.start()
            self._began = time.monotonic()
        self._depth += 1

    def on_end(self, event: event.Event) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._timer.cancel()
            self._seconds += time.monotonic() - self._began

    def _say(self, what: str, seconds: int) -> None:
        if what not in self._said:
            self._said.add(what)
            place = folder()
            how_often = "for this process" if place is None or place.name.startswith(_TEMPORARY) else "once"
            logging.getLogger(__name__).warning(f"compiling {what}, {how_often}: about {seconds} s")


_announcer = _Announcer()
event.register("numba:compile", _announcer)


@contextmanager
def compiling(what: str, seconds: int) -> Iterator[None]:
    """Within the block kernels that have to be compiled are announced as `what`, which takes about `seconds`."""
    before = _announcer.waits
    # Whoever calls this from such a block knows more.
    _announcer.waits = before or (what, seconds)
    try:
        yield
    finally:
        _announcer.waits = before
