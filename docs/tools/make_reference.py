"""Write the pages that come from the code itself: every command's help, and the API from signatures and docstrings.

    python docs/tools/make_reference.py            writes commands.md and both api-*.md of docs/reference/
    python docs/tools/make_reference.py --check    exits with 1 where one of them is not what would be written

In commands.md what stands between `<!-- help: COMMAND -->` and `<!-- end -->` is written anew, in the API pages what
stands between `<!-- api: MODULE [NAME ...] -->` and `<!-- end -->`; all else is written by hand.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

REFERENCE = Path(__file__).parent.parent / "reference"
PAGES = ("commands.md", "api-defocus-sim.md", "api-dfd-train.md")
PROGRAMS = {e.name: e.load() for e in entry_points(group="console_scripts") if e.name.startswith("dfd-")}
WIDTH = 92
_PART = re.compile(r"<!-- (help|api): (.+?) -->\n.*?<!-- end -->", re.DOTALL)
# Where a signature is longer than this, each argument gets a line.
_LINE = 96


def help_of(line: str) -> str:
    """The help of the command that `line` calls ("dfd-prepare nyu"), as `--help` prints it."""
    program, *words = line.split()
    command: Any = PROGRAMS[program]
    default = getattr(command, "default", None)
    for word in words or ([default] if default else []):
        command = command.commands[word]
    context = click.Context(command, info_name=line, terminal_width=WIDTH, **command.context_settings)
    return f"```text\n{command.get_help(context)}\n```"


def api_of(line: str) -> str:
    """The public names of a module, or those that `line` lists behind it, as headings, signatures and docstrings."""
    place, *names = line.split()
    module = importlib.import_module(place)
    texts = []
    if not names:
        texts += [_prose(module.__doc__)]
        names = [name for name, value in vars(module).items() if _is_own(name, value, place)]
    texts += [_entry(f"{place}.{name}", getattr(module, name), "###") for name in names]
    return "\n\n".join(text for text in texts if text)


def _is_own(name: str, value: Any, place: str) -> bool:
    shown = inspect.isclass(value) or inspect.isfunction(value)
    return shown and not name.startswith("_") and value.__module__ == place and bool(value.__doc__)


def _entry(name: str, value: Any, level: str) -> str:
    short = name.rpartition(".")[2]
    texts = [f"{level} `{name}`"]
    is_enum = inspect.isclass(value) and issubclass(value, enum.Enum)
    is_error = inspect.isclass(value) and issubclass(value, BaseException)
    if not is_enum and not is_error:
        texts.append(_signature(short, value))
    texts.append(_prose(value.__doc__))
    if inspect.isclass(value) and not is_error:
        texts += [_member(short, key, one) for key, one in vars(value).items() if not key.startswith("_")]
    return "\n\n".join(text for text in texts if text)


def _member(owner: str, name: str, value: Any) -> str:
    """A method or property of a class; fields are told by the class itself."""
    kind = f"@{type(value).__name__}\n" if isinstance(value, classmethod | staticmethod) else ""
    inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
    if not inspect.isfunction(inner) or not inner.__doc__ or inner.__doc__.startswith("As `"):
        return ""
    if isinstance(value, property):
        annotation = inner.__annotations__.get("return", "")
        return f"**`{owner}.{name}: {annotation}`**\n\n{_prose(inner.__doc__)}"
    return f"{_signature(name, inner, kind)}\n\n{_prose(inner.__doc__)}"


def _signature(name: str, value: Any, decorator: str = "") -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    made = [_argument(one) for one in signature.parameters.values() if one.name not in ("self", "cls")]
    kinds = [one.kind for one in signature.parameters.values() if one.name not in ("self", "cls")]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        made.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    result = signature.return_annotation
    end = ")" if inspect.isclass(value) or result is signature.empty else f") -> {_annotation(result)}"
    text = f"{name}({', '.join(made)}{end}"
    if len(text) > _LINE:
        text = f"{name}(\n" + "".join(f"    {one},\n" for one in made) + end
    return f"```text\n{decorator}{text}\n```"


def _argument(parameter: inspect.Parameter) -> str:
    star = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = star + parameter.name
    if parameter.annotation is not inspect.Parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not inspect.Parameter.empty:
        text += f" = {_default(parameter.default)}"
    return text


def _annotation(value: Any) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", str(value))


def _default(value: Any) -> str:
    if repr(value) == "<factory>":
        return "..."
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}(...)"
    text = value.__name__ if inspect.isfunction(value) or inspect.isclass(value) else repr(value)
    return "..." if " at 0x" in text else text


def _prose(docstring: str | None) -> str:
    """A docstring as Markdown: sections as bold words, what they list as a list."""
    head, *sections = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(docstring or ""), flags=re.MULTILINE)
    texts = [head.strip()]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        listed = title not in ("Notes", "Examples", "See Also", "References")
        told = re.sub(r"^(\S.*)$", r"- `\1`", body, flags=re.MULTILINE) if listed else body
        told = re.sub(r"^    (?=\S)", "  ", told, flags=re.MULTILINE).strip()
        texts.append(f"**{title}**\n\n{told}")
    return "\n\n".join(text for text in texts if text)


def written(text: str) -> str:
    """A page with all its parts made anew."""
    makers = {"help": help_of, "api": api_of}

    def part(match: re.Match[str]) -> str:
        return f"<!-- {match.group(1)}: {match.group(2)} -->\n{makers[match.group(1)](match.group(2))}\n<!-- end -->"

    return _PART.sub(part, text)


def main() -> None:
    """Write the pages, or check them."""
    stale = []
    for name in PAGES:
        path = REFERENCE / name
        now = path.read_text(encoding="utf-8")
        made = written(now)
        if made != now:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(made, encoding="utf-8")
    if "--check" in sys.argv and stale:
        sys.exit(f"not what docs/tools/make_reference.py writes now: {', '.join(stale)}")


if __name__ == "__main__":
    main()
