"""Every file that belongs to the project, in a clone and in an unpacked source archive."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def project_files(*, new=False):
    """Paths of what git tracks, with `new` also of what it would; without a repository, of all that is there but caches."""
    listing = ["git", "ls-files", *(["--cached", "--others", "--exclude-standard"] if new else [])]
    if (ROOT / ".git").exists():
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        return [ROOT / name for name in names if (ROOT / name).is_file()]
    found = [path for path in ROOT.rglob("*") if path.is_file()]
    return [path for path in found if not is_leftover(path.relative_to(ROOT).parts)]


def is_leftover(parts):
    """Whether a path is what Python and its tools leave behind."""
    return any(part.startswith(".") or part == "__pycache__" or part.endswith(".egg-info") for part in parts)
