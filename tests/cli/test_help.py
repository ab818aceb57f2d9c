"""Every command's help reads like documentation, and what all commands share works the same for each."""

import os
import re
import shlex
import subprocess
import sys

import click
import pytest
from commands import BIN, PROGRAMS, parse


def walk(name, command):
    """Every command below `command`, with the words that call it; a default command goes without its name."""
    yield name, command
    for word, sub in getattr(command, "commands", {}).items():
        yield from walk(name if word == getattr(command, "default", None) else f"{name} {word}", sub)


# A group whose command needs no name shows that command's help; its own is never seen.
COMMANDS = [(n, c) for name, top in PROGRAMS.items() for n, c in walk(name, top) if not hasattr(c, "default")]
SEEN = pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[n for n, _ in COMMANDS])


def help_text(command, name, width=110):
    context = click.Context(command, info_name=name, terminal_width=width, **command.context_settings)
    return command.get_help(context)


@SEEN
def test_every_option_is_explained(name, command):
    for option in command.params:
        if isinstance(option, click.Option):
            record = option.get_help_record(click.Context(command, **command.context_settings))
            assert record is not None, f"{name} hides {option.name}"
            assert record[1].strip(), f"{name}: {option.name} says nothing"
            names, explained = record
            assert "INTEGER" not in names, f"{name}: {option.name} takes an integer of what?"
            if isinstance(option.default, int | float | str) and not option.is_flag:
                assert "default" in explained, f"{name}: the default of {option.name} is not told"


@SEEN
def test_options_stand_under_headings_with_the_general_ones_last(name, command):
    text = help_text(command, name)
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert "General" in headings
    assert headings.index("General") >= len(headings) - 4
    if sum(isinstance(p, click.Option) and p.expose_value for p in command.params) > 8:
        assert len(headings) > 4, "many options want to be grouped"
    assert headings[-1] == "Exit codes"
    assert max(map(len, text.splitlines())) <= 118


@SEEN
def test_every_example_is_a_command_line_that_parses(name, command):
    examples = command.examples
    assert examples, f"{name} has no example"
    for line in examples:
        program, *words = shlex.split(line)
        parse(PROGRAMS[program], program, words)
    assert any(line.startswith(name) for line in examples)


@SEEN
def test_every_command_tells_its_version(name, command, capsys):
    program, *words = name.split()
    with pytest.raises(SystemExit) as ended:
        PROGRAMS[program].main([*words, "--version"], prog_name=program)
    assert ended.value.code == 0
    assert re.fullmatch(rf"{program} \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_group_alone_shows_its_help(run_command):
    alone = run_command("dfd-prepare")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert alone.stderr.startswith("Usage: dfd-prepare [OPTIONS] COMMAND")
    assert len(alone.stderr.splitlines()) > 20


def test_quiet_leaves_results_only_and_verbose_tells_everything(run_command, tmp_path):
    make = ("dfd-prepare", "synthetic", "--count", "2", "--size", "48x32", "--out", "s.zarr", "--overwrite")
    quiet = run_command(*make, "--quiet", cwd=tmp_path)
    verbose = run_command("dfd-prepare", "--verbose", *make[1:], cwd=tmp_path)
    assert (quiet.returncode, verbose.returncode) == (0, 0)
    assert quiet.stderr == ""
    assert "s.zarr" in quiet.stdout
    assert "count = 2 (given)" in verbose.stderr
    assert "preset = paper (default)" in verbose.stderr
    assert re.search(r"numpy \d", verbose.stderr)
    assert re.search(r"took \d+\.\d s, at most \d+ MiB", verbose.stderr)
    broken = run_command("dfd-prepare", "info", "missing.zarr", "--verbose", cwd=tmp_path)
    assert broken.returncode == 2
    assert "Traceback" in broken.stderr
    assert broken.stderr.splitlines()[-1].startswith("Error: missing.zarr is not there")
    both = run_command("dfd-prepare", "info", "missing.zarr", "-q", "-v", cwd=tmp_path)
    assert both.stderr == "Error: --quiet and --verbose exclude each other\n"


def test_the_default_command_steps_back_for_a_named_one(capsys):
    # Before the name of a command may stand what every command has.
    with pytest.raises(SystemExit) as ended:
        PROGRAMS["dfd-eval"].main(["--quiet", "table2", "--help"], prog_name="dfd-eval")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: dfd-eval table2 ")


def test_verbose_does_not_print_a_password(run_command, tmp_path):
    secret = run_command(
        "dfd-prepare", "synthetic", "--count", "1", "--out", "s3://user:hunter2@host/s.zarr", "-v", cwd=tmp_path
    )
    assert secret.returncode == 2
    assert "hunter2" not in secret.stderr + secret.stdout


def test_piped_output_has_no_colours(run_command, tmp_path):
    environment = os.environ | {"TERM": "xterm-256color"}
    made = run_command("dfd-prepare", "synthetic", "--count", "2", "--size", "48x32", cwd=tmp_path, env=environment)
    shown = run_command("dfd-prepare", "--help", cwd=tmp_path, env=environment)
    assert "\x1b" not in made.stdout + made.stderr + shown.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dfd-prepare sy", "synthetic"),
        ("dfd-prepare nyu --foc", "--focus"),
        ("dfd-train --rec", "--recipe"),
        ("dfd-eval --shar", "--shards"),
        ("dfd-eval ta", "table2"),
        ("dfd-predict --ref", "--refocus"),
    ],
)
def test_the_shell_completes(typed, offered):
    program = typed.split()[0]
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    environment = os.environ | {
        variable: "bash_complete",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    result = subprocess.run([BIN / program], capture_output=True, text=True, env=environment, check=False)
    assert f"plain,{offered}" in result.stdout.splitlines()


def test_help_is_quick():
    # What people wait for most often: no torch, numba or dask.
    heavy = "import sys; print([m for m in ('torch', 'numba', 'dask', 'matplotlib', 'scipy') if m in sys.modules])"
    modules = "from dfd_cli import evaluate, predict, prepare, train"
    result = subprocess.run([sys.executable, "-c", f"{modules}; {heavy}"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
