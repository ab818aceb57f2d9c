"""Conversions by other processes: a dask cluster on loopback, and worker processes of the conversion's own."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import faults
import pytest
from commands import BIN
from gated import DeadlySource, GatedSource, TornSource
from sources import small_settings

from defocus_sim.convert.run import Workers, convert
from defocus_sim.errors import ConversionInterruptedError, ConvertError, DefocusSimError
from defocus_sim.shards.store import open_store

TESTS = str(Path(__file__).parents[2] / "support")
PROCESSES = Workers(count=2, processes=True)


@pytest.fixture
def gate(tmp_path):
    folder = tmp_path / "gate"
    folder.mkdir()
    return folder


def readers(gate):
    return {int(path.name.removeprefix("reader-")) for path in gate.glob("reader-*")}


@contextmanager
def when_waiting(gate, action):
    """Runs `action(process id)` as soon as a reader waits at the gate, then opens it."""
    done = threading.Event()

    def watch():
        while not (found := readers(gate)) and not done.is_set():
            time.sleep(0.01)
        for pid in found:
            action(pid)
        (gate / "open").touch()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Cluster:
    """A dask scheduler and its workers, each a process of its own with its own current folder."""

    def __init__(self, folder):
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        self.address, self.folder, self.processes = f"tcp://127.0.0.1:{port}", folder, []
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")

    def start_worker(self):
        options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", "--death-timeout", "30")
        return self._start("worker", self.address, *options)

    def _start(self, *arguments):
        environment = os.environ | {"PYTHONPATH": TESTS, "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "30s"}
        process = subprocess.Popen(
            [str(BIN / "dask"), *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of two workers; a test that kills one starts another."""
    one = Cluster(tmp_path_factory.mktemp("elsewhere"))
    try:
        one.start_worker()
        one.start_worker()
        yield one
    finally:
        one.close()


def assert_only(folder, *names):
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_cluster_writes_the_same_bytes(cluster, small_store, tmp_path):
    calls, links = [], []
    workers = Workers(scheduler=cluster.address, announce=links.append)
    convert(small_settings(), tmp_path / "a.zarr", workers=workers, on_progress=lambda d, t: calls.append((d, t)))
    assert faults.tree_bytes(tmp_path / "a.zarr") == faults.tree_bytes(small_store.url)
    assert calls == [(i, 10) for i in range(0, 11, 2)]
    assert len(links) == 1


def test_relative_paths_mean_the_folder_of_the_command(cluster, run_command, tmp_path):
    faults.write_nyu(tmp_path / "labelled.mat", frames=3)
    arguments = ["dfd-prepare", "nyu", "labelled.mat", "--splits", "none", "--samples-per-shard", "1"]
    ours = run_command(*arguments, "--out", "ours.zarr", "--scheduler", cluster.address, cwd=tmp_path)
    assert ours.returncode == 0, ours.stderr
    assert "dashboard: http" in ours.stderr
    assert run_command(*arguments, "--out", "local.zarr", cwd=tmp_path).returncode == 0
    assert faults.tree_bytes(tmp_path / "ours.zarr") == faults.tree_bytes(tmp_path / "local.zarr")
    assert not list(cluster.folder.glob("*.zarr*"))


def test_a_worker_killed_in_the_middle_changes_no_byte(cluster, small_store, gate, tmp_path):
    killed = []

    def kill(pid):
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
        cluster.start_worker()

    settings = small_settings(source=GatedSource(gate=gate))
    with when_waiting(gate, kill):
        convert(settings, tmp_path / "a.zarr", workers=Workers(scheduler=cluster.address))
    assert len(killed) == 1
    assert len(readers(gate)) == 2, "the shard was done again by another worker"
    assert faults.tree_bytes(tmp_path / "a.zarr") == faults.tree_bytes(small_store.url)


def test_an_error_of_a_worker_is_the_error_of_the_conversion(cluster, tmp_path):
    with pytest.raises(DefocusSimError, match="frame 5 is torn"):
        convert(small_settings(source=TornSource()), tmp_path / "a.zarr", workers=Workers(scheduler=cluster.address))
    store = convert(
        small_settings(source=TornSource()),
        tmp_path / "a.zarr",
        workers=Workers(scheduler=cluster.address),
        on_error="skip",
        resume=True,
    ).store
    assert [frame["name"] for frame in store.manifest.skipped] == ["frame-5"]


def test_a_scheduler_or_worker_without_the_code_is_one_line(cluster, tmp_path, monkeypatch):
    module = ModuleType("nowhere")
    exec("from gated import TornSource\nclass Lost(TornSource): pass", module.__dict__)
    module.Lost.__module__ = "nowhere"
    monkeypatch.setitem(sys.modules, "nowhere", module)
    with pytest.raises(ConvertError, match="dfd-toolkit"):
        convert(small_settings(source=module.Lost()), tmp_path / "a.zarr", workers=Workers(scheduler=cluster.address))
    assert_only(tmp_path)


def test_workers_that_outlive_an_interrupt_write_nothing_more(cluster, small_store, gate, tmp_path):
    """The task at the gate goes on when its conversion has ended and cleaned up after itself."""
    out = tmp_path / "a.zarr"
    settings = small_settings(source=GatedSource(gate=gate), samples_per_shard=10)

    def interrupt(pid):
        os.kill(os.getpid(), signal.SIGINT)
        while (tmp_path / "a.zarr.partial/.markers/run").exists():
            time.sleep(0.01)

    with when_waiting(gate, interrupt), pytest.raises(ConversionInterruptedError):
        convert(settings, out, workers=Workers(scheduler=cluster.address))
    time.sleep(1)
    assert not [name for name in faults.tree_bytes(tmp_path) if "/c/0/" in name and "train" in name]
    convert(small_settings(), out, workers=Workers(scheduler=cluster.address), overwrite=True)
    assert faults.tree_bytes(out) == faults.tree_bytes(small_store.url)


def test_a_scheduler_that_dies_is_named_and_the_rest_is_done_without_it(small_store, gate, tmp_path):
    cluster = Cluster(tmp_path)
    try:
        cluster.start_worker()
        settings = small_settings(source=GatedSource(gate=gate))
        with (
            when_waiting(gate, lambda pid: cluster.scheduler.kill()),
            pytest.raises(ConvertError, match=r"scheduler") as caught,
        ):
            convert(settings, tmp_path / "a.zarr", workers=Workers(scheduler=cluster.address))
        assert "\n" not in str(caught.value)
    finally:
        cluster.close()
    convert(settings, tmp_path / "a.zarr", resume=True)
    assert faults.tree_bytes(tmp_path / "a.zarr") == faults.tree_bytes(small_store.url)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://a"])
def test_no_scheduler_at_the_address_is_one_line(run_command, tmp_path, address):
    arguments = ["dfd-prepare", "synthetic", "--count", "2", "--size", "64x48", "--out", tmp_path / "a.zarr"]
    result = run_command(*arguments, "--scheduler", address, cwd=tmp_path)
    assert result.returncode == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: no dask scheduler answers at")
    assert address in lines[0]
    assert_only(tmp_path)


def test_worker_processes_write_the_same_bytes(run_command, tmp_path):
    arguments = ["dfd-prepare", "synthetic", "--count", "6", "--size", "64x48", "--samples-per-shard", "2"]
    ours = run_command(*arguments, "--out", tmp_path / "ours.zarr", "--processes", "--workers", "2")
    assert ours.returncode == 0, ours.stderr
    assert run_command(*arguments, "--out", tmp_path / "local.zarr", "--workers", "2").returncode == 0
    assert faults.tree_bytes(tmp_path / "ours.zarr") == faults.tree_bytes(tmp_path / "local.zarr")


def test_a_worker_process_killed_in_the_middle_changes_no_byte(small_store, gate, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", TESTS)
    with when_waiting(gate, lambda pid: os.kill(pid, signal.SIGKILL)):
        convert(small_settings(source=GatedSource(gate=gate)), tmp_path / "a.zarr", workers=PROCESSES)
    assert len(readers(gate)) == 2
    assert os.getpid() not in readers(gate)
    assert faults.tree_bytes(tmp_path / "a.zarr") == faults.tree_bytes(small_store.url)


def test_a_shard_that_kills_every_worker_is_an_error_and_the_others_stay(tmp_path, monkeypatch):
    """As where memory runs out: the shard is tried a few times, then given up."""
    monkeypatch.setenv("PYTHONPATH", TESTS)
    settings = small_settings(source=DeadlySource())
    with pytest.raises(ConvertError, match="workers died again and again"):
        convert(settings, tmp_path / "a.zarr", workers=PROCESSES)
    assert not (tmp_path / "a.zarr").exists()
    convert(small_settings(), tmp_path / "a.zarr", resume=True)
    assert len(open_store(tmp_path / "a.zarr").split("train")) == 6


LISTENS = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from sources import SmoothSource, small_settings
from defocus_sim.convert.run import Workers, convert

def sockets():
    tree = [os.getpid()]
    for pid in tree:
        for thread in Path(f"/proc/{{pid}}/task").iterdir():
            tree += map(int, (thread / "children").read_text().split())
    found = []
    for pid in tree:
        for link in Path(f"/proc/{{pid}}/fd").iterdir():
            try:
                target = os.readlink(link)
            except FileNotFoundError:
                continue
            if target.startswith("socket:"):
                found.append((pid, target))
    return len(tree), found

if __name__ == "__main__":
    seen = []
    workers = Workers(count=2, processes={processes})
    convert(small_settings(), {out!r}, workers=workers, on_progress=lambda done, total: seen.append(sockets()))
    print(max(count for count, _ in seen), [found for _, found in seen if found])
"""


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_a_conversion_on_this_machine_has_no_socket(processes, tmp_path):
    """Not even one that is not listened on: nobody can reach it."""
    script = tmp_path / "script.py"
    path = [str(Path(__file__).parents[3]), TESTS]
    script.write_text(LISTENS.format(path=path, processes=processes, out=str(tmp_path / "a.zarr")))
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    count, found = result.stdout.split(maxsplit=1)
    assert found.strip() == "[]"
    assert int(count) >= (3 if processes else 1)


def test_worker_processes_end_with_a_parent_that_is_killed(gate, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    path = [str(Path(__file__).parents[3]), TESTS]
    script.write_text(
        f"import sys\nsys.path[:0] = {path!r}\n"
        "from gated import GatedSource\nfrom sources import small_settings\n"
        "from defocus_sim.convert.run import Workers, convert\nfrom pathlib import Path\n"
        "if __name__ == '__main__':\n"
        f"    settings = small_settings(source=GatedSource(gate=Path({str(gate)!r})))\n"
        f"    convert(settings, {str(tmp_path / 'a.zarr')!r}, workers=Workers(count=2, processes=True))\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    with when_waiting(gate, lambda pid: process.kill()):
        process.wait(60)
    for pid in readers(gate):
        for _ in range(100):
            if not Path(f"/proc/{pid}").exists():
                break
            time.sleep(0.05)
        assert not Path(f"/proc/{pid}").exists()
