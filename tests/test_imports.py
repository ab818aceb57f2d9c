"""Where things lie: what each room may import, read off the import statements of every file, and how full it gets."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from project_files import project_files

ROOT = Path(__file__).parent.parent
PACKAGES = {"defocus_sim": "defocus_sim", "dfd_train": "dfd_train", "cli": "dfd_cli"}
FILES = sorted(path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py"))
# What dfd_train may know of defocus_sim: the shard format, the lens, errors, progress, how lengths and sizes are
# written; prediction also re-renders.
MEETING_POINT = (
    "defocus_sim.pictures.depth_colours",
    "defocus_sim.shards",
    "defocus_sim.lens",
    "defocus_sim.errors",
    "defocus_sim.progress",
    "defocus_sim.units",
)
REFOCUS = ("defocus_sim.simulate", "defocus_sim.blur.options")
# Blur while training: the simulator's own disc and kernels, so that both blur alike.
SIMULATOR = {
    "defocus.py": ("defocus_sim.blur.disc",),
    "blurred.py": ("defocus_sim.blur.gather", "defocus_sim.blur.layered"),
    # One reader of pictures: what opens for one command opens for all.
    "images.py": ("defocus_sim.datasets.formats.pictures",),
}


def imported(path):
    """Every module that a file imports, at its top or inside a function; `from a import b` counts as a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a thing lives"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(prefix):
    return [path for path in FILES if str(path.relative_to(ROOT)).startswith(prefix)]


def graph(folder):
    """Of each module of a package the modules of that package it imports, at its top or inside a function."""
    names = {module_name(path, folder): path for path in (ROOT / folder).rglob("*.py")}
    # `from a.b import c` names the module a.b.c where there is one, else a.b.
    return {
        name: {longest for n in imported(path) if (longest := n) in names and n != name and n not in PACKAGES.values()}
        for name, path in names.items()
    }


def module_name(path, folder):
    parts = path.relative_to(ROOT / folder).with_suffix("").parts
    return ".".join([PACKAGES[folder], *(part for part in parts if part != "__init__")])


def levels(edges):
    """How many nodes the longest way down from each node passes, itself included; a circle fails."""
    found = {}

    def below(node, way):
        assert node not in way, "a circle of imports: " + " > ".join([*way[way.index(node) :], node])
        if node not in found:
            found[node] = 1 + max((below(other, [*way, node]) for other in edges[node]), default=0)
        return found[node]

    for node in edges:
        below(node, [])
    return found


def rooms(folder):
    """The imports between a package's rooms: its folders, and the modules beside them. Its `__init__.py`, which only
    tells the public names, is none."""
    edges = {}
    for name, others in graph(folder).items():
        if name == PACKAGES[folder]:
            continue
        room = name.split(".")[1]
        edges.setdefault(room, set()).update(other.split(".")[1] for other in others)
        edges[room].discard(room)
    return edges


def within(name, *packages):
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_keeps_to_its_room(path):
    room, names = path.relative_to(ROOT).parts[0], set(imported(path))
    wrong = set()
    if room != "cli":
        wrong |= {name for name in names if within(name, "dfd_cli", "cli")}
    if room == "defocus_sim":
        wrong |= {name for name in names if within(name, "torch", "torchvision", "dfd_train")}
    if room == "dfd_train":
        allowed = MEETING_POINT + (REFOCUS if path.name == "refocus.py" else ()) + SIMULATOR.get(path.name, ())
        wrong |= {name for name in names if within(name, "defocus_sim") and not within(name, "defocus_sim", *allowed)}
        wrong |= {n for n in names if n.startswith("defocus_sim.") and not any(within(n, a) for a in allowed)}
    assert not wrong


@pytest.mark.parametrize("folder", PACKAGES)
def test_modules_import_in_no_circle(folder):
    levels(graph(folder))


@pytest.mark.parametrize("folder", PACKAGES)
def test_rooms_lie_on_five_levels_at_most(folder):
    found = levels(rooms(folder))
    assert len(found) > 5
    assert max(found.values()) <= 5, sorted(found.items(), key=lambda item: item[1])


def test_no_folder_has_more_than_fourteen_entries():
    """Packages, tests, documents, benchmarks and the top alike: more than that is a list to search, not a place to see.
    What tools want at the top under a name with a dot does not show in a listing and does not count."""
    entries = {}
    for path in project_files():
        parts = path.relative_to(ROOT).parts
        for depth, part in enumerate(parts):
            if not part.startswith("."):
                entries.setdefault("/".join(parts[:depth]) or ".", set()).add(part)
    assert {"defocus_sim", "docs", "tests/support"} <= entries.keys()
    assert {folder: len(inside) for folder, inside in entries.items() if len(inside) > 14} == {}


def test_sources_and_shards_do_not_know_each_other():
    assert not [
        n for path in modules("defocus_sim/datasets") for n in imported(path) if within(n, "defocus_sim.shards")
    ]
    assert not [
        n for path in modules("defocus_sim/shards") for n in imported(path) if within(n, "defocus_sim.datasets")
    ]


def test_network_losses_and_metrics_do_not_know_the_trainer():
    parts = [p for p in modules("dfd_train") if p.parent.name in ("model", "losses") or p.stem in ("metrics", "ssim")]
    assert parts
    assert not [
        n
        for path in parts
        for n in imported(path)
        if within(n, "dfd_train.training.train", "dfd_train.training.launch")
    ]


def test_dask_has_one_home():
    users = {str(p.relative_to(ROOT)) for p in FILES if any(within(n, "dask", "distributed") for n in imported(p))}
    assert users == {"defocus_sim/convert/cluster.py"}


def test_numba_stays_in_the_kernels_of_blur_and_rays():
    """Procedural scenes are ray-cast: compiled, 480x360 frames come 2.3 times as fast as in NumPy, on one core."""
    compilers = ("numba", "defocus_sim.kernels.njit")
    users = {path.relative_to(ROOT) for path in FILES if any(within(name, *compilers) for name in imported(path))}
    users -= {Path("defocus_sim/kernels.py")}
    rooms = {"defocus_sim/blur", "defocus_sim/blur/vectors", "defocus_sim/datasets/synthetic/rendering"}
    assert {str(user.parent) for user in users} == rooms


@pytest.mark.parametrize("module", ["defocus_sim", "dfd_train", "dfd_cli.prepare"])
def test_importing_a_package_is_light(module):
    code = (
        f"import sys, {module}; print([m for m in ('torch', 'numba', 'distributed', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_defocus_sim_runs_without_torch_installed():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from defocus_sim import Lens, defocus
import defocus_sim.convert.run, defocus_sim.pictures.preview, defocus_sim.datasets.synthetic.source
print(defocus(np.zeros((4, 4)), np.full((4, 4), 3.0), Lens.preset("paper")).sum())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "0.0", result.stderr
