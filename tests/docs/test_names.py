"""Files and functions that documents and comments name are there."""

import ast
import importlib.util
import io
import re
import tokenize
from pathlib import Path

import pytest
from project_files import project_files

ROOT = Path(__file__).parents[2]
PACKAGES = ("defocus_sim", "dfd_train", "cli")
TRACKED = project_files(new=True)
MODULES = [path.relative_to(ROOT).as_posix() for path in TRACKED if path.suffix == ".py"]
# What was is told in the change log and in the history of results, with the names of then.
READ = [
    path
    for path in TRACKED
    if path.suffix in (".py", ".md", ".toml", ".yml") or path.name == "Makefile"
    if path.name != "CHANGELOG.md" and path != Path(__file__) and "docs/results/history" not in path.as_posix()
]
PATH = re.compile(r"(?<![\w/.*{-])((?:[\w-]+/)*[\w-]+\.py)\b(?![\w/(])")
# Files to be written, and programs of others.
NOT_OURS = {"associate.py", "defocus_sim/datasets/npz_folder.py", "dfd_train/model/shallow.py"}
# Files of data and results, of which documents speak too; and a module of an optional package.
ENDINGS = {"csv", "html", "jpg", "json", "mat", "npy", "pgm", "png", "py", "toml"}
OPTIONAL = {"isal_zlib"}
DOTTED = re.compile(r"`([a-z_]\w*)\.([A-Za-z_]\w*)(?:\(\))?`")


def prose(path):
    """Text that people read: a document as it is, of a program its comments and docstrings."""
    text = path.read_text()
    if path.suffix != ".py":
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    parts = [token.string for token in tokens if token.type == tokenize.COMMENT]
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    parts += [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, nodes)]
    return "\n".join(parts)


def exists(name):
    return name in NOT_OURS or any(f"/{module}".endswith(f"/{name}") for module in MODULES)


@pytest.mark.parametrize("path", READ, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_program_file_that_is_named_exists(path):
    assert [name for name in PATH.findall(prose(path)) if not exists(name)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_function_of_a_module_that_is_named_exists(package):
    """`module.name` in a docstring or comment, where nothing in the file's code goes by the name `module`."""
    wrong = []
    for path in (path for path in TRACKED if path.suffix == ".py" and path.is_relative_to(ROOT / package)):
        code = {token.string for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
                if token.type == tokenize.NAME}  # fmt: skip
        for module, name in DOTTED.findall(prose(path)):
            if name in ENDINGS or module in OPTIONAL or len(module) == 1:
                continue
            # A package's names are those of its files.
            homes = [ROOT / one for one in MODULES if one.endswith(f"/{module}.py") or f"/{module}/" in one]
            if any(home.stem == name or re.search(rf"\b{name}\b", home.read_text()) for home in homes):
                continue
            if not homes and (module in code or importlib.util.find_spec(module) is not None):
                continue
            wrong.append(f"{path.relative_to(ROOT)}: {module}.{name}")
    assert wrong == []
