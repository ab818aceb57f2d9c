"""What a wheel holds and asks for is what the source tree holds and imports."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = {"cli": "dfd_cli", "defocus_sim": "defocus_sim", "dfd_train": "dfd_train"}
# numba asks for one exact version of it; a second opinion could only contradict.
COMES_WITH = {"OpenEXR": "openexr", "llvmlite": "numba", "triton": "torch"}
FILES = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]


def canonical(requirement):
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


def test_every_package_is_shipped_and_typed():
    found = {
        ".".join((ROOMS[path.relative_to(ROOT).parts[0]], *path.parent.relative_to(ROOT).parts[1:]))
        for path in FILES
        if path.name == "__init__.py"
    }
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])
    assert all((ROOT / room / "py.typed").is_file() for room in ROOMS)


def test_whatever_is_imported_is_asked_for_and_pinned():
    project = PROJECT["project"]
    asked = {canonical(r) for r in project["dependencies"]}
    extras = {canonical(r) for name in ("s3", "onnx", "exr", "heic") for r in project["optional-dependencies"][name]}
    pinned = {canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert asked <= pinned
    homes = packages_distributions()
    imported = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
    foreign = imported - set(sys.stdlib_module_names) - set(ROOMS.values())
    for module in sorted(foreign):
        distributions = {canonical(name) for name in homes.get(module, ())} | {COMES_WITH.get(module)}
        assert distributions & (asked | extras), f"{module} is imported, {distributions} is not asked for"
