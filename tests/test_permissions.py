"""Places that may not be read or written are said to be so, by every command, and not to be missing."""

import ctypes
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from commands import BIN

# Of Linux's capabilities: root without these two has the rights of any owner of a file.
_DROP_FROM_BOUNDING_SET, _DAC_OVERRIDE, _DAC_READ_SEARCH = 24, 1, 2
# All in one process, as importing takes longest.
_RUN = """
import contextlib, io, json, sys
from commands import PROGRAMS
ends = []
for words in json.load(sys.stdin):
    said, code = io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            PROGRAMS[words[0]].main(args=words[1:], prog_name=words[0])
        except SystemExit as error:
            code = error.code
    ends.append([code, said.getvalue()])
print(json.dumps(ends))
"""
COMMANDS = (
    "dfd-prepare info closed/a.zarr", "dfd-prepare info a.zarr", "dfd-prepare verify a.zarr",
    "dfd-prepare preview a.zarr --out p.png", "dfd-prepare merge a.zarr open.zarr --out m.zarr",
    "dfd-prepare merge open.zarr open.zarr --out closed/m.zarr",
    "dfd-prepare rgbd closed --out o.zarr", "dfd-prepare rgbd --pairs closed/list.csv --out o.zarr",
    "dfd-prepare rgbd pictures --depth-dir closed --out o.zarr",
    "dfd-prepare rgbd pictures --test-list closed/t.txt --out o.zarr",
    "dfd-prepare nyu closed/nyu.mat --splits none --out o.zarr", "dfd-prepare make3d closed --out o.zarr",
    "dfd-prepare pairs closed --out o.zarr", "dfd-prepare pairs --defocused closed --sharp pictures --out o.zarr",
    "dfd-prepare synthetic --count 2 --size 64x48 --out closed/o.zarr", "dfd-prepare lens --lens closed/lens.toml",
    "dfd-prepare lens --bound closed", "dfd-prepare lens --plot closed/plot.png",
    "dfd-train --shards a.zarr --out run", "dfd-train --shards open.zarr --out closed/run",
    "dfd-train --config closed/run.toml --shards open.zarr --out run", "dfd-train --out closed --resume",
    "dfd-train --out closed/run --resume", "dfd-train --shards open.zarr --out run --init-from closed",
    "dfd-train plot closed", "dfd-train plot closed/run",
    "dfd-eval --shards open.zarr --checkpoint closed",
    "dfd-eval --shards open.zarr --checkpoint closed/a.pt", "dfd-eval table2 --runs closed",
    "dfd-predict closed --checkpoint w.safetensors", "dfd-predict closed/a.png --checkpoint w.safetensors",
    "dfd-predict pictures --checkpoint closed", "dfd-predict pictures --checkpoint closed/a.pt",
    "dfd-predict pictures --checkpoint closed/w.safetensors", "dfd-predict pictures --checkpoint closed.safetensors",
    "dfd-predict pictures --checkpoint w.safetensors --out closed/results",
    "dfd-predict pictures --checkpoint w.safetensors --lens closed/lens.toml",
    "dfd-predict export --checkpoint w.safetensors --torch closed/net.pt2",
    "dfd-calibrate closed", "dfd-calibrate --stack closed/stack.csv --sharp pictures/0.png --depth-at 1m",
    "dfd-reproduce table2 --shards a.zarr --out r", "dfd-reproduce table2 --shards open.zarr --out closed/r",
)  # fmt: skip


@pytest.fixture
def places(tmp_path, small_store):
    """Folders and stores, some of which nobody may look into."""
    import torch

    from dfd_train.config.model import variant
    from dfd_train.model.build import build_model
    from dfd_train.prediction.images import png_bytes
    from dfd_train.runs.weights_file import write_weights

    for store in ("open.zarr", "a.zarr"):
        shutil.copytree(small_store.url, tmp_path / store)
    net = build_model(variant("tiny"), generator=torch.Generator().manual_seed(0))
    write_weights(tmp_path / "w.safetensors", net.config, net.state_dict())
    shutil.copy(tmp_path / "w.safetensors", tmp_path / "closed.safetensors")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0.png").write_bytes(png_bytes(np.full((64, 64, 3), 90, np.uint8)))
    np.save(tmp_path / "pictures" / "0.npy", np.ones((64, 64), np.float32))
    (tmp_path / "closed").mkdir()
    closed = [tmp_path / name for name in ("closed", "a.zarr", "closed.safetensors")]
    for place in closed:
        place.chmod(0)
    yield tmp_path
    for place in closed:
        place.chmod(0o755)


def _said(error):
    return "Permission denied" in error or "is not readable" in error


def drop_rights():
    """Before a program begins: take from root what lets it read everything."""
    system = ctypes.CDLL(None)
    if os.geteuid() == 0:
        for right in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
            system.prctl(_DROP_FROM_BOUNDING_SET, right, 0, 0, 0)


def may_read_everything(folder):
    """Whether even a process without rights reads what nobody may read, as where capabilities cannot be dropped."""
    code = "import os, sys; sys.exit(os.access(sys.argv[1], os.R_OK))"
    return subprocess.run([BIN / "python", "-c", code, folder], preexec_fn=drop_rights, check=False).returncode


def test_places_without_permission_are_named_and_not_called_missing(places):
    if may_read_everything(places / "closed"):
        pytest.skip("this user may read everything and cannot give that up")
    support = os.path.join(os.path.dirname(__file__), "support")
    done = subprocess.run(
        [BIN / "python", "-c", _RUN],
        input=json.dumps([command.split() for command in COMMANDS]),
        capture_output=True,
        text=True,
        cwd=places,
        preexec_fn=drop_rights,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])},
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wrong = []
    for command, (code, said) in zip(COMMANDS, json.loads(done.stdout), strict=True):
        errors = [line for line in said.splitlines() if line.startswith("Error: ")]
        if code not in (1, 2) or len(errors) != 1 or not _said(errors[0]) or "Traceback" in said:
            wrong.append(f"{command}: {code} {said[-400:]}")
    assert not wrong, "\n".join(wrong)
