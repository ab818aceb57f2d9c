"""What goes wrong during a conversion: bad frames, signals, disks, others at work in the same place."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import faults
import numpy as np
import pytest
from commands import BIN
from sources import SmoothSource, small_settings

from defocus_sim import SensorNoise
from defocus_sim.blur.options import Rendering
from defocus_sim.convert.run import Workers, convert
from defocus_sim.datasets.base import RgbdFrame
from defocus_sim.errors import (
    ConversionInterruptedError,
    ConversionTakenOverError,
    ConvertError,
    DefocusSimError,
    SourceError,
)
from defocus_sim.lens import Lens
from defocus_sim.shards.store import open_store, verify_store

TESTS = str(Path(__file__).parents[2] / "support")
# Frames of the source by split, as `SmoothSource` divides them.
TRAIN, TEST = (0, 1, 2, 5, 6, 7), (3, 4, 8, 9)


@dataclass(frozen=True, kw_only=True)
class BadSource(SmoothSource):
    """`SmoothSource` with frames that cannot be read (`torn`) or used (`blind`: no depth, `nan`: depth not finite)."""

    torn: tuple[int, ...] = ()
    blind: tuple[int, ...] = ()
    kind: ClassVar[str] = "bad"

    def read(self, index):
        if index in self.torn:
            raise SourceError(f"frame {index} is torn")
        frame = super().read(index)
        return RgbdFrame(frame.aif, np.zeros_like(frame.depth_m)) if index in self.blind else frame


@dataclass(frozen=True, kw_only=True)
class HookedSource(SmoothSource):
    """`SmoothSource` that calls `HOOK[0](index)` before each frame; for tests in one process."""

    def read(self, index):
        HOOK[0](index)
        return super().read(index)


# Not a field of the source: tasks are pickled even in one process.
HOOK = []


@pytest.fixture
def hooked():
    """Sets what a `HookedSource` calls."""

    def use(function):
        HOOK[:] = [function]
        return HookedSource()

    yield use
    HOOK.clear()


def bad_settings(torn=(), blind=(), **changes):
    return small_settings(source=BadSource(torn=tuple(torn), blind=tuple(blind)), **changes)


def assert_sound(store, settings, skipped):
    """Every sample that is listed is the frame it names, and everything but `skipped` is listed."""
    assert all(problem is None for _, problem in verify_store(open_store(store.url)))
    found = set()
    for split in store.split_names:
        rows = store.split(split)
        batch = rows.read(range(len(rows)))
        for row, name in enumerate(rows.names):
            frame = int(name.split("@")[0].removeprefix("frame-"))
            assert frame in (TRAIN if split == "train" else TEST)
            good = SmoothSource(hw=settings.source.hw).read(frame)
            assert (batch["aif"][row] == good.aif).all()
            assert (batch["depth_m"][row] == good.depth_m).all()
            found.add(frame)
    assert found == set(range(10)) - set(skipped)
    assert [frame["name"] for frame in store.manifest.skipped] == [f"frame-{i}" for i in sorted(skipped)]


@pytest.mark.parametrize(
    ("torn", "blind"),
    [
        pytest.param((1,), (), id="first shard"),
        pytest.param((5,), (), id="middle"),
        pytest.param((7, 9), (), id="ends"),
        pytest.param((2, 5), (), id="a whole shard"),
        pytest.param((0, 1), (2, 5), id="most of a split"),
        pytest.param(TEST, (), id="a whole split"),
        pytest.param((0,), (3, 7), id="two reasons"),
    ],
)
class TestSkipping:
    def test_the_rest_is_a_valid_store_that_lists_what_is_missing(self, tmp_path, torn, blind):
        settings = bad_settings(torn, blind)
        store = convert(settings, tmp_path / "a.zarr", on_error="skip").store
        assert_sound(store, settings, {*torn, *blind})
        reasons = {frame["name"]: frame["reason"] for frame in store.manifest.skipped}
        assert all("torn" in reasons[f"frame-{i}"] for i in torn)
        assert all("no valid pixel" in reasons[f"frame-{i}"] for i in blind)
        assert not [name for name in faults.tree_bytes(tmp_path) if "partial" in name or "markers" in name]

    def test_the_bytes_depend_neither_on_workers_nor_on_an_interrupt(self, tmp_path, torn, blind):
        settings = bad_settings(torn, blind)
        convert(settings, tmp_path / "one.zarr", on_error="skip", workers=1)
        convert(settings, tmp_path / "three.zarr", on_error="skip", workers=3)
        with pytest.raises(ConversionInterruptedError):
            convert(settings, tmp_path / "resumed.zarr", on_error="skip", workers=1, on_progress=interrupt_from(3))
        convert(settings, tmp_path / "resumed.zarr", on_error="skip", resume=True, workers=2)
        wanted = faults.tree_bytes(tmp_path / "one.zarr")
        assert faults.tree_bytes(tmp_path / "three.zarr") == wanted
        assert faults.tree_bytes(tmp_path / "resumed.zarr") == wanted


def interrupt_from(samples):
    """Interrupts this process once, when `samples` or more are done."""
    sent = []

    def on_progress(done, total):
        if done >= samples and not sent:
            sent.append(os.kill(os.getpid(), signal.SIGINT))

    return on_progress


class TestOneShardForManyThreads:
    def test_every_thread_makes_samples_and_the_bytes_are_the_same(self, tmp_path, hooked):
        together = threading.Barrier(3)
        # Passed only by three threads that read at the same time.
        source = hooked(lambda index: together.wait(60) if index < 3 else None)
        settings = small_settings(source=source, samples_per_shard=6)
        convert(settings, tmp_path / "three.zarr", workers=Workers(count=3))
        HOOK[:] = [lambda index: None]
        convert(settings, tmp_path / "one.zarr", workers=1)
        assert faults.tree_bytes(tmp_path / "three.zarr") == faults.tree_bytes(tmp_path / "one.zarr")

    def test_a_frame_that_another_thread_finds_bad_is_named(self, tmp_path):
        settings = bad_settings(torn=(5,), samples_per_shard=10)
        with pytest.raises(SourceError, match="frame 5 is torn"):
            convert(settings, tmp_path / "a.zarr", workers=4)
        assert not (tmp_path / "a.zarr").exists()

    def test_an_interrupt_while_others_help_leaves_what_a_resume_needs(self, tmp_path):
        settings = small_settings(source=SmoothSource(hw=(240, 320)), samples_per_shard=4)
        convert(settings, tmp_path / "whole.zarr", workers=1)
        out = tmp_path / "a.zarr"
        with pytest.raises(ConversionInterruptedError, match="are kept"):
            # Three shards: the first two are finished and the last has all threads.
            convert(settings, out, workers=2, on_progress=interrupt_from(9))
        convert(settings, out, resume=True, workers=3)
        assert faults.tree_bytes(out) == faults.tree_bytes(tmp_path / "whole.zarr")


def test_a_frame_is_skipped_with_its_whole_focal_stack(tmp_path):
    settings = bad_settings((1, 9), focus_distances_m=(1.0, 2.0, 4.0), samples_per_shard=4)
    store = convert(settings, tmp_path / "a.zarr", on_error="skip", workers=1).store
    assert_sound(store, settings, {1, 9})
    for split in ("train", "test"):
        names = store.split(split).names
        assert [name.split("@")[1] for name in names] == ["1m", "2m", "4m"] * (len(names) // 3)
        assert len({name.split("@")[0] for name in names}) == len(names) // 3
    convert(settings, tmp_path / "b.zarr", on_error="skip", workers=4)
    assert faults.tree_bytes(tmp_path / "a.zarr") == faults.tree_bytes(tmp_path / "b.zarr")


def test_skipping_every_frame_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(ConvertError, match="not one of the 10 frames could be used"):
        convert(bad_settings(range(10)), tmp_path / "a.zarr", on_error="skip")
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_bad_frames_does_not_depend_on_the_option(small_store, tmp_path):
    convert(small_settings(), tmp_path / "a.zarr", on_error="skip")
    assert faults.tree_bytes(tmp_path / "a.zarr") == faults.tree_bytes(small_store.url)


@pytest.mark.parametrize("workers", [1, Workers(count=2, processes=True)], ids=["thread", "processes"])
@pytest.mark.parametrize("bad", [{"torn": (5,)}, {"blind": (5,)}], ids=["torn", "blind"])
def test_failing_names_the_frame_and_skipping_may_follow(tmp_path, bad, workers):
    settings = bad_settings(**bad)
    with pytest.raises(DefocusSimError, match=r"frame[ -]5"):
        convert(settings, tmp_path / "a.zarr", workers=workers)
    assert not (tmp_path / "a.zarr").exists()
    store = convert(settings, tmp_path / "a.zarr", on_error="skip", resume=True).store
    assert_sound(store, settings, {5})


@contextmanager
def command(*arguments, wait_for, out, **options):
    """The installed command in a process group of its own, when `wait_for` marks or files of `out` are there."""
    process = subprocess.Popen(
        [str(BIN / "dfd-prepare"), *map(str, arguments), "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    try:
        limit = time.monotonic() + 60
        while time.monotonic() < limit and process.poll() is None and not wait_for(Path(f"{out}.partial")):
            time.sleep(0.01)
        yield process
    finally:
        with_children = os.getpgid(process.pid) if process.poll() is None else None
        if with_children is not None:
            os.killpg(with_children, signal.SIGKILL)
        process.communicate(timeout=60)


def markers(count):
    return lambda place: len(list(place.glob(".markers/t*.json"))) >= count


def begun(place):
    return any(place.rglob("*.partial"))


@pytest.fixture
def realistic(tmp_path):
    """Arguments for 24 samples of 561x427 out of three frames."""
    files = faults.write_nyu(tmp_path / "labelled.mat", frames=3), faults.write_splits(tmp_path / "s.mat", [1, 2], [3])
    stack = ",".join(f"{1 + i / 10:.1f}m" for i in range(8))
    return ["nyu", files[0], "--splits", files[1], "--focus", stack, "--samples-per-shard", "4"]


@pytest.mark.parametrize(("wait_for", "word"), [(begun, "nothing is left"), (markers(2), "continue with --resume")])
def test_ctrl_c_ends_the_command_within_a_second(realistic, tmp_path, run_command, wait_for, word):
    out = tmp_path / "a.zarr"
    with command(*realistic, wait_for=wait_for, out=out) as process:
        asked = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=30)
        took = time.monotonic() - asked
    lines = error.strip().splitlines()
    assert word in lines[-1]
    assert lines[-1].startswith("Error: interrupted")
    assert process.returncode in (2, 130)
    # One second on a machine that does nothing else; half a second of grace for one that does.
    assert took < 1.5
    assert not out.exists()
    if wait_for is begun:
        assert not Path(f"{out}.partial").exists()
        return
    assert run_command("dfd-prepare", *realistic, "--out", out, "--resume").returncode == 0
    assert run_command("dfd-prepare", "verify", out).returncode == 0


@pytest.mark.parametrize("extra", [(), ("--processes", "--workers", "2")], ids=["threads", "processes"])
def test_a_terminated_command_leaves_no_process_and_is_resumed(realistic, tmp_path, run_command, extra):
    out = tmp_path / "a.zarr"
    with command(*realistic, *extra, wait_for=markers(1), out=out) as process:
        group = process.pid
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    for _ in range(100):
        if not group_is_alive(group):
            break
        time.sleep(0.1)
    assert not group_is_alive(group)
    if extra:
        return
    refused = run_command("dfd-prepare", *realistic, "--out", out)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    resumed = run_command("dfd-prepare", *realistic, "--out", out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert run_command("dfd-prepare", "verify", out).returncode == 0


def group_is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_with_worker_processes_prints_one_line_only(realistic, tmp_path):
    out = tmp_path / "a.zarr"
    with command(*realistic, "--processes", "--workers", "2", wait_for=markers(1), out=out) as process:
        os.killpg(process.pid, signal.SIGINT)
        asked = time.monotonic()
        _, error = process.communicate(timeout=30)
        assert time.monotonic() - asked < 5
    assert "Traceback" not in error
    assert error.strip().splitlines()[-1].startswith("Error: interrupted; ")


@contextmanager
def small_disk(folder, size):
    """A file system of `size` bytes at `folder`, or a skip where this user cannot have one."""
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


@pytest.mark.parametrize("workers", [1, 2, Workers(count=2, processes=True)], ids=["one", "threads", "processes"])
def test_a_full_disk_keeps_earlier_shards_and_resumes_when_there_is_space(tmp_path, workers):
    settings = small_settings(source=SmoothSource(hw=(120, 160)), compression="none")
    whole = convert(settings, tmp_path / "whole.zarr").store
    enough = sum(record.file.bytes for record in whole.records())
    with small_disk(tmp_path / "disk", enough * 3 // 4) as disk:
        out = disk / "a.zarr"
        with pytest.raises(ConvertError, match=r"No space left on device; \d of 5 shards are kept, continue with --re"):
            convert(settings, out, workers=workers)
        assert not out.exists()
        assert not [name for name in faults.tree_bytes(disk) if name.endswith(".partial")]
        with pytest.raises(ConvertError, match="No space left"):
            convert(settings, out, workers=workers, resume=True)
        subprocess.run(["mount", "-o", f"remount,size={enough * 2}", str(disk)], check=True)
        convert(settings, out, resume=True)
        assert faults.tree_bytes(out) == faults.tree_bytes(whole.url)


def test_a_disk_without_any_space_is_named_and_left_empty(tmp_path):
    with small_disk(tmp_path / "disk", 4096) as disk:
        (disk / "filler").write_bytes(b"0" * 4096)
        with pytest.raises(ConvertError, match="No space left"):
            convert(small_settings(), disk / "a.zarr")
        assert not (disk / "a.zarr").exists()


def test_a_read_only_file_system_is_named(tmp_path):
    with small_disk(tmp_path / "disk", 2**20) as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(ConvertError, match=r"writing .*a\.zarr\.partial failed: Read-only file system"):
            convert(small_settings(), disk / "a.zarr")


def test_a_folder_without_the_right_to_write_is_named(tmp_path):
    code = """
import os, sys
from sources import small_settings
from defocus_sim.convert.run import convert
from defocus_sim.errors import ConvertError
from defocus_sim.simulate import compile_kernels
compile_kernels(small_settings().rendering)
if os.geteuid() == 0:
    # Permissions do not concern root, but who is not root may not see all of Python: hence first what loads modules.
    os.setresuid(65534, 65534, 65534)
try:
    convert(small_settings(), "a.zarr")
except ConvertError as error:
    print(error)
"""
    tmp_path.chmod(0o555)
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": TESTS},
        cwd=tmp_path,
    )
    tmp_path.chmod(0o755)
    assert "Permission denied" in result.stdout, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_workers_are_swept(small_store, tmp_path):
    out = tmp_path / "a.zarr"
    with pytest.raises(ConversionInterruptedError):
        convert(small_settings(), out, workers=1, on_progress=interrupt_from(5))
    stray = tmp_path / "a.zarr.partial/train/aif/c/0/0/0/0.0123456789ab.partial"
    stray.write_bytes(b"half a shard")
    (stray.parent.parent.parent.parent / "99").mkdir()
    convert(small_settings(), out, resume=True)
    names = set(faults.tree_bytes(out))
    assert names == set(faults.tree_bytes(small_store.url))


def test_a_refused_resume_leaves_every_finished_shard(small_store, tmp_path):
    out = tmp_path / "a.zarr"
    with pytest.raises(ConversionInterruptedError):
        convert(small_settings(), out, workers=1, on_progress=interrupt_from(5))
    before = faults.tree_bytes(tmp_path)
    with pytest.raises(ConvertError, match="other settings"):
        convert(small_settings(seed=9), out, resume=True)
    with pytest.raises(ConvertError, match=r"source\.hw"):
        convert(small_settings(source=SmoothSource(hw=(40, 50))), out, resume=True)
    assert faults.tree_bytes(tmp_path) == before
    convert(small_settings(), out, resume=True)
    assert faults.tree_bytes(out) == faults.tree_bytes(small_store.url)


@pytest.mark.parametrize("damage", ["settings", "skipped", "marker", "shard", "swapped marker"])
def test_a_damaged_state_is_named_or_done_again(small_store, tmp_path, damage):
    out, place = tmp_path / "a.zarr", tmp_path / "a.zarr.partial"
    with pytest.raises(ConversionInterruptedError):
        convert(small_settings(), out, workers=1, on_progress=interrupt_from(6))
    match damage:
        case "settings":
            (place / ".markers/settings.json").write_text("{")
        case "skipped":
            (place / ".markers/skipped.json").write_text('[{"x": 1}]')
        case "marker":
            (place / ".markers/train-0.json").write_text("[1")
        case "shard":
            faults.truncate(next(place.glob("train/aif/c/0/*/*/*")), 0.5)
        case "swapped marker":
            shutil.copy(place / ".markers/train-0.json", place / ".markers/train-1.json")
    if damage in ("settings", "skipped"):
        with pytest.raises(ConvertError, match="damaged: use --overwrite"):
            convert(small_settings(), out, resume=True)
        convert(small_settings(), out, overwrite=True)
    else:
        convert(small_settings(), out, resume=True)
    assert faults.tree_bytes(out) == faults.tree_bytes(small_store.url)


def test_of_two_conversions_at_once_at_most_one_ends_well_and_the_store_is_whole(tmp_path):
    """Both begin at the same moment with other settings; whatever comes out is one of the two, never a mixture."""
    code = """
import sys, time
from test_faults import noisy
from defocus_sim.convert.run import convert
from defocus_sim.errors import ConvertError
seed, folder, begin = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
convert(noisy(seed), f"{folder}/wanted-{seed}.zarr")
for attempt in range(6):
    time.sleep(max(0, begin + attempt - time.time()))
    try:
        convert(noisy(seed), f"{folder}/both-{attempt}.zarr", workers=1)
        print("done")
    except ConvertError as error:
        print(error)
"""
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{TESTS}"}
    begin = str(time.time() + 6)
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(seed), str(tmp_path), begin],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for seed in (0, 1)
    ]
    ends = list(zip(*(process.communicate(timeout=120)[0].splitlines() for process in both), strict=True))
    wanted = [faults.tree_bytes(tmp_path / f"wanted-{seed}.zarr") for seed in (0, 1)]
    assert len(ends) == 6
    for attempt, pair in enumerate(ends):
        out = tmp_path / f"both-{attempt}.zarr"
        assert pair.count("done") <= 1, pair
        if "done" in pair:
            assert faults.tree_bytes(out) == wanted[pair.index("done")]
        else:
            assert not out.exists()


def noisy(seed, **changes):
    """Settings whose stores differ in every pixel with `seed`, but not in any size."""
    rendering = Rendering(noise=SensorNoise(read=0.02))
    return small_settings(seed=seed, compression="none", rendering=rendering, **changes)


def test_a_conversion_that_another_takes_over_ends_without_a_trace(tmp_path, hooked):
    """The stale tasks of the first write nothing into the second's store, though names and sizes are the same."""
    out = tmp_path / "a.zarr"
    convert(noisy(1), tmp_path / "wanted.zarr")
    taken = threading.Event()
    second = []

    def take_over(index):
        if index == 5 and not taken.is_set():
            taken.set()
            thread = threading.Thread(target=lambda: second.append(convert(noisy(1), out, overwrite=True, workers=1)))
            thread.start()
            thread.join(60)

    with pytest.raises(ConversionTakenOverError):
        convert(noisy(0, source=hooked(take_over)), out, workers=1)
    assert len(second) == 1
    assert faults.tree_bytes(out) == faults.tree_bytes(tmp_path / "wanted.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "wanted.zarr"]


def test_a_store_that_appears_meanwhile_is_not_replaced_unasked(tmp_path, hooked):
    out = tmp_path / "a.zarr"
    convert(small_settings(compression="none"), tmp_path / "other.zarr")
    before = faults.tree_bytes(tmp_path / "other.zarr")

    def appear(index):
        if index == 9 and not out.exists():
            shutil.copytree(tmp_path / "other.zarr", out)

    with pytest.raises(ConvertError, match="made by another conversion meanwhile"):
        convert(small_settings(source=hooked(appear)), out, workers=1)
    assert faults.tree_bytes(out) == before


def test_a_store_deleted_while_it_is_resumed_is_an_error(small_store, tmp_path, hooked):
    out, place = tmp_path / "a.zarr", tmp_path / "a.zarr.partial"
    with pytest.raises(ConversionInterruptedError):
        convert(small_settings(), out, workers=1, on_progress=interrupt_from(5))

    def delete(index):
        if index == 8:
            shutil.rmtree(place)

    with pytest.raises(ConvertError, match=r"no longer belongs|was not written|No such file"):
        convert(small_settings(source=hooked(delete)), out, resume=True, workers=1)
    assert not out.exists()
    convert(small_settings(), out, resume=True)
    assert faults.tree_bytes(out) == faults.tree_bytes(small_store.url)


def test_a_lens_that_one_frame_cannot_have_is_named(tmp_path):
    """A solved aperture needs depth on either side of the focus; the message says for which frame it failed."""
    settings = small_settings(source=BadSource(blind=(3,)), lens=Lens.preset("syndof"))
    with pytest.raises(ConvertError, match="frame-3"):
        convert(settings, tmp_path / "a.zarr")


def test_killed_with_all_its_processes_a_conversion_resumes_to_the_same_bytes():
    """Four of the forty moments of the benchmark."""
    script = Path(__file__).parents[3] / "benchmarks/attack/kill.py"
    options = ("--trials", "4", "--seed", "5", "--command", "processes", "--command", "overwrite")
    command = [sys.executable, str(script), *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert "4 of 4 byte-identical" in result.stdout, result.stdout + result.stderr
