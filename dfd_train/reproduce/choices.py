"""What the command can be asked for.

Spelled out, or without an import of torch, so that `--help` answers at once; a test holds them against the library.
"""

from __future__ import annotations

TABLES = ("table2", "table3", "table4")
RECIPES = ("paper", "authors", "fast")
WIDTHS = ("full", "small", "tiny")
