"""Every function of the API pages says in numpydoc sections what it takes, returns and raises."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("api-defocus-sim", "api-dfd-train")
SECTION = re.compile(r"^(\w+)\n-+\n((?:.*\n?)*?)(?=^\w+\n-+\n|\Z)", re.M)


def documented(page):
    """Name and object of every function that the page shows, by its marks `<!-- api: MODULE [NAME ...] -->`."""
    for line in re.findall(r"<!-- api: (.+?) -->", (ROOT / "docs" / "reference" / f"{page}.md").read_text()):
        place, *names = line.split()
        module = importlib.import_module(place)
        own = [n for n, v in vars(module).items() if not n.startswith("_") and getattr(v, "__module__", "") == place]
        for name in names or own:
            yield f"{place}.{name}", getattr(module, name)


FUNCTIONS = {name: thing for page in PAGES for name, thing in documented(page) if inspect.isfunction(thing)}


def test_the_pages_show_functions():
    assert "defocus_sim.simulate.defocus" in FUNCTIONS
    assert len(FUNCTIONS) >= 15


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_and_result_has_its_place(name):
    function = FUNCTIONS[name]
    text, signature = inspect.getdoc(function), inspect.signature(function)
    sections = dict(SECTION.findall(text + "\n"))
    named = re.findall(r"^(\S.*)$", sections.get("Parameters", ""), re.M)
    assert sorted(argument for line in named for argument in line.split(", ")) == sorted(signature.parameters)
    assert ("Returns" in sections or "Yields" in sections) == (signature.return_annotation not in (None, "None"))
    # What is raised is said in its section, not in the prose.
    assert "Raises `" not in text
