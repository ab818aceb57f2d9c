"""What the site shows and its sources do not hold: README and changelog as pages."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WHOLE_PAGES = {"index.md": "README.md", "project/changes.md": "CHANGELOG.md"}
_PLACES = {str(ROOT / file): page for page, file in WHOLE_PAGES.items()}
# Marks for the tests and for docs/tools/make_reference.py, nothing to read.
_MARK = re.compile(r"^ *<!-- (?:help|api|not run here|end)\b.*?-->\n", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?!\w+:)[^)#\s]+")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page that `page` stands for, with links as the site has them and without the marks in it."""
    docs, name = ROOT / "docs", page.file.src_uri
    file = ROOT / WHOLE_PAGES[name] if name in WHOLE_PAGES else docs / name
    if name in WHOLE_PAGES:
        markdown = file.read_text(encoding="utf-8")

    def link(match: re.Match[str]) -> str:
        """A link as it is written in the repository, from where the page lies on the site."""
        leads_to = os.path.normpath(file.parent / match.group())
        shown = docs / _PLACES.get(leads_to, leads_to)
        return os.path.relpath(shown, (docs / name).parent) if shown.exists() else match.group()

    return _MARK.sub("", _LINK.sub(link, markdown))
