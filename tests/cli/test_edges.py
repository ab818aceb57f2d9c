"""However a command ends, it says so in one line, and no name it prints commands the terminal."""

import os
import resource
import shutil
import signal
import subprocess
import time

import pytest
from commands import BIN
from PIL import Image

RED = "\x1b[31m"


def started(*arguments, **options):
    return subprocess.Popen(
        [str(BIN / arguments[0]), *map(str, arguments[1:])],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def lines_of(text):
    assert "Traceback" not in text
    return [line for line in text.strip().splitlines() if not line.startswith("blurring")]


@pytest.mark.parametrize(
    "name", ["dfd-prepare", "dfd-train", "dfd-eval", "dfd-predict", "dfd-calibrate", "dfd-reproduce"]
)
def test_signals_while_a_command_imports_end_it_in_one_line(name, tmp_path):
    # A library that takes its time, so that the signals come in the middle of the imports.
    (tmp_path / "click.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = started(name, "--help", env={**os.environ, "PYTHONPATH": path})
    assert process.stdout.readline() == "importing\n"
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "Error: interrupted\n")


def test_a_program_that_imports_the_commands_keeps_its_own_handlers():
    code = "import signal; before = signal.getsignal(signal.SIGINT); import dfd_cli.train; "
    code += "assert signal.getsignal(signal.SIGINT) is before"
    subprocess.run([str(BIN / "python"), "-c", code], check=True)


def test_a_wish_to_stop_that_the_interpreter_drops_is_repeated():
    code = """
import os, signal, sys, time
from dfd_cli.support.signals import orderly_end
class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
try:
    with orderly_end():
        one = Dropped()
        del one
        time.sleep(20)
except KeyboardInterrupt:
    sys.exit(5)
"""
    ended = subprocess.run([str(BIN / "python"), "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (5, "")


@pytest.fixture
def long_conversion(tmp_path):
    """A conversion of many seconds, when its first files are there."""
    out = tmp_path / "a.zarr"
    process = started("dfd-prepare", "synthetic", "--count", "400", "--size", "640x480", "--out", out)
    limit = time.monotonic() + 120
    while (
        process.poll() is None and not list(out.parent.rglob("*.partial/train/aif/c/0/*")) and time.monotonic() < limit
    ):
        time.sleep(0.02)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_however_often_a_conversion_ends_with_130_and_one_line(number, long_conversion):
    for _ in range(6):
        long_conversion.send_signal(number)
        time.sleep(0.01)
    _, error = long_conversion.communicate(timeout=60)
    assert long_conversion.returncode == 130
    assert lines_of(error)[-1].startswith("Error: interrupted")


@pytest.mark.parametrize("words", [("dfd-prepare", "lens"), ("dfd-eval", "--help"), ("dfd-prepare", "info", "--json")])
def test_a_full_standard_output_is_one_line_that_names_it(words, small_store):
    words = (*words, small_store.url) if "info" in words else words
    with open("/dev/full", "w") as full:
        process = started(*words, stdout=full)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert lines_of(error) == ["Error: standard output cannot be written: No space left on device"]


def test_streams_that_are_closed_do_not_become_files_of_the_results(tmp_path):
    # A library that prints to standard output while the first file that is opened would have its number.
    (tmp_path / "rich.py").write_text(
        "import os\nfile = open('first', 'w')\nos.write(1, b'noise')\nraise SystemExit(0)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    script = f"exec {BIN / 'dfd-prepare'} info nowhere <&- >&- 2>&-"
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, timeout=60, check=True)
    assert (tmp_path / "first").read_bytes() == b""


def test_a_command_without_standard_streams_does_its_work(small_store, tmp_path):
    script = f"exec {BIN / 'dfd-prepare'} preview {small_store.url} --out sheet.png <&- >&- 2>&-"
    subprocess.run(["bash", "-c", script], cwd=tmp_path, timeout=60, check=True)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_whoever_reads_the_output_may_go_before_its_end():
    process = started("dfd-prepare", "lens")
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(60) in (0, 1, 2, 141)
    assert lines_of(error) == []
    process.stderr.close()


def test_names_of_files_never_reach_the_terminal_as_commands(tmp_path, run_command):
    folder = tmp_path / f"{RED}folder"
    folder.mkdir()
    (folder / f"{RED}a.png").write_bytes(b"no picture")
    for command in (
        ("dfd-prepare", "rgbd", folder, "--depth-scale", "0.001", "--out", tmp_path / "o.zarr"),
        ("dfd-prepare", "info", folder / "store"),
        ("dfd-prepare", "verify", folder),
        ("dfd-predict", folder, "--checkpoint", folder / "run", "--out", tmp_path / "o"),
        ("dfd-eval", "--shards", folder, "--checkpoint", folder),
        ("dfd-train", "--shards", folder, "--out", folder / "run", "--verbose"),
    ):
        result = run_command(*command)
        assert result.returncode == 2
        assert "\x1b" not in result.stdout + result.stderr
        assert r"\x1b[31m" in result.stderr


@pytest.mark.parametrize("url", ["s3://me:hidden@host/store", "s3://bucket/store?token=hidden&X-Amz-Signature=hidden"])
def test_credentials_in_a_url_are_not_printed(url, run_command):
    environment = os.environ | {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "y",
    }
    result = run_command("dfd-prepare", "info", url, "-v", env=environment)
    assert result.returncode == 2
    assert "hidden" not in result.stderr.split("Traceback")[0]


def test_a_path_beyond_what_the_system_knows_costs_one_line(tmp_path, run_command):
    for command in (
        ("dfd-prepare", "info", "a" * 5000),
        ("dfd-prepare", "rgbd", "a" * 5000),
        ("dfd-prepare", "nyu", "a" * 5000),
        ("dfd-eval", "--shards", "x", "--checkpoint", "a" * 5000),
        ("dfd-eval", "table2", "a" * 5000),
        ("dfd-train", "--shards", "x", "--out", "a" * 5000),
        ("dfd-train", "plot", "a" * 5000),
    ):
        result = run_command(*command, cwd=tmp_path)
        assert result.returncode == 2, (command[:2], result.stderr)
        assert len(lines_of(result.stderr)) == 1


def test_a_limit_on_the_size_of_files_is_one_line_for_a_merge(small_store, tmp_path):
    script = (
        f"ulimit -f 8; exec {BIN / 'dfd-prepare'} merge {small_store.url} {small_store.url} --out {tmp_path / 'm.zarr'}"
    )
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2, result.stderr
    assert "too large" in lines_of(result.stderr)[-1]
    assert list(tmp_path.iterdir()) == []


def no_file_larger_than_a_page():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.fixture(scope="module")
def made_run(tmp_path_factory, run_command):
    """A store, a run on it and a picture, all small."""
    place = tmp_path_factory.mktemp("made")
    words = ("synthetic", "--count", "6", "--size", "64x48", "--test-fraction", "0.4", "--out", "a.zarr", "-q")
    assert run_command("dfd-prepare", *words, cwd=place).returncode == 0
    train = (
        "--recipe",
        "fast",
        "--model",
        "tiny",
        "--epochs",
        "1",
        "--crop",
        "48",
        "--batch-size",
        "2",
        "--no-tensorboard",
    )
    assert run_command("dfd-train", "--shards", "a.zarr", "--out", "run", *train, cwd=place).returncode == 0
    (place / "pictures").mkdir()
    for number in range(40):
        Image.new("RGB", (400, 300), (number, 90, 30)).save(place / "pictures" / f"{number}.png")
    return place


COMMANDS = {
    "eval": ("dfd-eval", "--shards", "a.zarr", "--checkpoint", "run", "--out"),
    "predict": ("dfd-predict", "pictures", "--checkpoint", "run", "--out"),
    "train": (
        "dfd-train",
        "--shards",
        "a.zarr",
        "--model",
        "tiny",
        "--size",
        "48",
        "--epochs",
        "1",
        "--no-tensorboard",
        "--out",
    ),
    "merge": ("dfd-prepare", "merge", "a.zarr", "a.zarr", "--out"),
    "prepare": ("dfd-prepare", "synthetic", "--count", "2", "--size", "64x48", "--out"),
    "export": ("dfd-predict", "export", "--checkpoint", "run", "--weights"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_limit_on_the_size_of_files_is_named_by_every_command(name, made_run, tmp_path):
    process = started(
        *COMMANDS[name], tmp_path / "out.safetensors", cwd=made_run, preexec_fn=no_file_larger_than_a_page
    )
    _, error = process.communicate(timeout=120)
    assert process.returncode in (1, 2), error
    assert all("too large" in line for line in lines_of(error) if line.startswith("Error"))
    assert "Error" in error


@pytest.mark.parametrize("name", ["eval", "predict"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_evaluation_and_prediction_end_with_130_and_one_line(name, number, made_run, tmp_path):
    process = started(*COMMANDS[name], tmp_path / "out", cwd=made_run)
    limit = time.monotonic() + 60
    while process.poll() is None and not list(tmp_path.rglob("*.*")) and time.monotonic() < limit:
        time.sleep(0.005)
    for _ in range(6):
        process.send_signal(number)
        time.sleep(0.01)
    _, error = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert process.returncode == 130, error
    assert [line for line in lines_of(error) if line.startswith("Error")] == ["Error: interrupted"]


def test_a_run_that_was_killed_with_its_first_file_begins_anew_with_overwrite(made_run, tmp_path, run_command):
    shutil.copytree(made_run / "a.zarr", tmp_path / "a.zarr")
    (tmp_path / "out").mkdir()
    shutil.copy(made_run / "run" / "run.toml", tmp_path / "out" / "run.toml")
    result = run_command(*COMMANDS["train"], "out", "--overwrite", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "checkpoints" / "best.pt").is_file()
