"""What the site shows and its sources do not hold: README and changelog as pages, and the commands' own help."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent
WHOLE_PAGES = {"index.md": "README.md", "changes.md": "CHANGELOG.md"}
PROGRAMS = {e.name: e.load() for e in entry_points(group="console_scripts") if e.name.startswith("dfd-")}
WIDTH = 92


def help_of(line: str) -> str:
    """The help of the command that `line` calls ("dfd-prepare nyu"), as `--help` prints it."""
    program, *words = line.split()
    command: Any = PROGRAMS[program]
    default = getattr(command, "default", None)
    for word in words or ([default] if default else []):
        command = command.commands[word]
    context = click.Context(command, info_name=line, terminal_width=WIDTH, **command.context_settings)
    return str(command.get_help(context))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page that `page` stands for, with each `<!-- help: dfd-prepare nyu -->` replaced by that help."""
    stands_for = WHOLE_PAGES.get(page.file.src_uri)
    if stands_for is not None:
        markdown = (ROOT / stands_for).read_text(encoding="utf-8")
        # Links are written for the repository's root; the site's root is docs/.
        markdown = markdown.replace("](docs/", "](").replace("](CHANGELOG.md)", "](changes.md)")
    markdown = markdown.replace("](../README.md", "](index.md")
    return re.sub(r"<!-- help: (.+?) -->", lambda match: f"```text\n{help_of(match.group(1))}\n```", markdown)
