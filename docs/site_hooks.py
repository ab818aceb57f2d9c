"""What the site shows and its sources do not hold: README and changelog as pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
WHOLE_PAGES = {"index.md": "README.md", "changes.md": "CHANGELOG.md"}
# Marks for the tests and for docs/make_reference.py, nothing to read.
_MARK = re.compile(r"^ *<!-- (?:help|api|not run here|end)\b.*?-->\n", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page that `page` stands for, without the marks in it."""
    stands_for = WHOLE_PAGES.get(page.file.src_uri)
    if stands_for is not None:
        markdown = (ROOT / stands_for).read_text(encoding="utf-8")
        # Links are written for the repository's root; the site's root is docs/.
        markdown = markdown.replace("](docs/", "](").replace("](CHANGELOG.md)", "](changes.md)")
    markdown = markdown.replace("](../README.md", "](index.md")
    return _MARK.sub("", markdown)
