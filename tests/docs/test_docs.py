"""What README and docs show is true: code runs, transcripts come out as printed, commands parse, links lead somewhere."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import pytest
from commands import PROGRAMS, parse

from dfd_train.config.toml import configured

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A block with a title is a file to add; tests/docs/test_contributing.py uses those, and the `diff` blocks.
# A comment before a block says why it is not run; readers do not see it.
BLOCK = re.compile(
    r"^(?: *<!-- not run here: ([^\n]+) -->\n)?( *)```(\w*)( title=[^\n]*)?\n(.*?)^\2```$", re.MULTILINE | re.DOTALL
)
NOT_RUN = "# not run here: "


def page_id(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page, language):
    found = BLOCK.findall(page.read_text())
    return [
        (f"{NOT_RUN}{reason}\n" if reason else "") + re.sub(rf"^{indent}", "", body, flags=re.M)
        for reason, indent, name, title, body in found
        if name == language and not title
    ]


def with_blocks(language):
    return pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, language)], ids=page_id)


@with_blocks("python")
def test_python_blocks_run_in_order(page, tmp_path):
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(page, "python")))
    result = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@with_blocks("sh")
def test_shell_blocks_run_or_say_why_not(page, tmp_path, run_command):
    for body in blocks(page, "sh"):
        if body.startswith(NOT_RUN):
            assert len(body.splitlines()[0]) > len(NOT_RUN) + 5, "a reason"
            continue
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                result = run_command(*words, cwd=tmp_path)
                assert result.returncode == 0, f"{line}\n{result.stderr}"


@with_blocks("sh")
def test_commands_that_are_not_run_still_parse(page):
    # Their options exist and take such values: the most that can be known without the data.
    for body in blocks(page, "sh"):
        if "tests/docs/test_contributing.py" in body.splitlines()[0]:
            continue  # commands of a copy in which more exists
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and (program := words[0].rpartition("/")[2]) in PROGRAMS:
                parse(PROGRAMS[program], program, words[1:])


@with_blocks("console")
def test_transcripts_come_out_as_printed(page, tmp_path, run_command):
    for body in blocks(page, "console"):
        for command, printed in re.findall(r"^\$ (.+)\n((?:[^$].*\n)*)", body, re.MULTILINE):
            result = run_command(*shlex.split(command), cwd=tmp_path)
            assert result.stdout + result.stderr == printed


@with_blocks("toml")
def test_configuration_files_are_accepted(page, tmp_path):
    for body in blocks(page, "toml"):
        tomllib.loads(body)
        (tmp_path / "run.toml").write_text(body)
        configured(tmp_path / "run.toml", out="run")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_block_is_of_a_kind_that_is_checked(page):
    # `text` and `bibtex` are nothing that could be run: trees, output, a citation.
    kinds = {name for _, _, name, _, _ in BLOCK.findall(page.read_text())}
    assert kinds <= {"python", "sh", "console", "toml", "diff", "text", "bibtex"}
    for body in blocks(page, "text"):
        assert body.startswith(NOT_RUN) or "import " not in body, f"code that is not run must say why:\n{body}"


def anchor(heading):
    """The id that both the site and common viewers give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower().replace("`", "")).strip().replace(" ", "-")


def test_help_and_api_pages_are_what_the_code_says():
    made = [sys.executable, "docs/tools/make_reference.py", "--check"]
    result = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stderr}\nwrite them anew: python docs/tools/make_reference.py"


def test_pages_read_whole_without_the_site():
    for page in PAGES:
        text = page.read_text()
        assert not re.search(r"^:::|^ *# not run here", text, re.MULTILINE), page.name
    assert "--focal-length" in (ROOT / "docs" / "reference" / "commands.md").read_text()
    assert "coc_diameter_px(" in (ROOT / "docs" / "reference" / "api-defocus-sim.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        name, _, part = target.partition("#")
        linked = page.parent / name if name else page
        assert linked.exists(), target
        if part:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert part in [anchor(heading) for heading in headings], target


def test_the_site_builds_without_a_warning_and_asks_nobody_for_anything(tmp_path):
    made = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    result = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text()
        # Links may lead out; scripts, styles, fonts and pictures must not come from there.
        assert not re.findall(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//', text), page.name
        assert not re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect|icon)"[^>]+href="(?:https?:)?//', text), (
            page.name
        )
        assert "<!-- help:" not in text
    assert "--focal-length" in (tmp_path / "site" / "reference" / "commands.html").read_text()
    assert "coc_diameter_px" in (tmp_path / "site" / "reference" / "api-defocus-sim.html").read_text()


@pytest.mark.slow
def test_the_pictures_can_be_made_again(tmp_path, run_command):
    # Copies, because the scripts write beside themselves.
    for name in ("images", "tools"):
        (tmp_path / "docs" / name).mkdir(parents=True)
    for name in ("make_pictures.py", "make_restored.py"):
        shutil.copy(ROOT / "docs" / "tools" / name, tmp_path / "docs" / "tools")
    made = run_command("dfd-prepare", "synthetic", "--count", "4", "--size", "64x48", "--out", "s.zarr", cwd=tmp_path)
    size = ("--model", "tiny", "--size", "40", "--epochs", "1", "--batch-size", "1")
    trained = run_command("dfd-train", "--shards", "s.zarr", "--out", "run", *size, cwd=tmp_path)
    assert (made.returncode, trained.returncode) == (0, 0), made.stderr + trained.stderr
    restored = ("docs/tools/make_restored.py", "--shards", "s.zarr", "--checkpoint", "run", "--samples", "0")
    for arguments in (("docs/tools/make_pictures.py",), restored):
        result = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
    found = {path.name for path in (tmp_path / "docs" / "images").iterdir()}
    drawn = {"triples.jpg", "focus_modes.jpg", "pixel_size.jpg", "coc_over_depth.png", "varied.jpg", "interiors.jpg"}
    assert found == drawn | {"restored.jpg"}
    # What is shown is what the scripts make, apart from the one that needs training.
    for name in found - {"restored.jpg"}:
        now, shown = (cv2.imread(str(path / "docs" / "images" / name)) for path in (tmp_path, ROOT))
        assert cv2.PSNR(now, shown) > 40, f"docs/images/{name} is not what docs/tools/make_pictures.py makes now"
