"""What the names of files and folders say: which file is depth, and what is left when that is taken away."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePath

from defocus_sim.datasets.formats.images import DEPTH_ONLY_SUFFIXES, DEPTH_SUFFIXES

# What a name says about a file's role: `a.depth.png`, `a_depth_mm.pgm`, `a-depth.tif`, `depth_a.png`, BTS's
# `sync_depth_a.png`; `a_rgb.png`, DenseDepth's `a_colors.png`.
DEPTH_NAME = re.compile(r"(?:[._-]+depth(?:[._-]?(?:mm|m))?$)|(?:^(?:sync[._-]?)?depth[._-]+)", re.IGNORECASE)
COLOUR_NAME = re.compile(r"(?:[._-]+(?:rgb|colou?rs?)$)|(?:^(?:rgb|colou?rs?)[._-]+)", re.IGNORECASE)
# Looser, where those find no partner: `depth000000`, `a.depth_meters`, `disp0`; `frame000000`, `im0`, `a.tonemap`.
_LOOSE_DEPTH = re.compile(
    r"(?:[._-]*(?:depth|dpt|disp|disparity)(?:[._-]?(?:maps?|met(?:er|re)s|mm|m|gt|planar|perspective))?$)"
    r"|(?:^(?:sync[._-]?)?(?:depth|dpt|disp|disparity|d)(?:[._-]?map)?[._-]*(?=\d))|(?:^depth[._-]+)",
    re.IGNORECASE,
)
_LOOSE_COLOUR = re.compile(
    r"(?:[._-]+(?:rgb|colou?rs?|images?|img|tonemap|left|final)$)"
    r"|(?:^(?:rgb|colou?rs?|im|left|r)[._-]*(?=\d))|(?:^(?:rgb|colou?rs?|image)[._-]+)",
    re.IGNORECASE,
)
# What files of either role may be called before their number.
_COUNTED = re.compile(r"^(?:frames?|images?|imgs?|photos?)[._-]*(?=\d)", re.IGNORECASE)
# Folders that say what lies in them: `depth`, `depth_bfx`, `gt_depth`, `depthmaps`; `rgb`, `image`, `color`.
_DEPTH_FOLDER = re.compile(
    r"(?:[a-z0-9]+[_-])*(?:depths?|depth_?maps?|disparit(?:y|ies)|scene_cam_\d+_geometry)"
    r"(?:[_-]?(?:maps?|mm|m|png|raw|bfx|gt|filled|images?|data|hdf5|preview))*",
    re.IGNORECASE,
)
_COLOUR_FOLDER = re.compile(
    r"(?:rgb|colou?rs?|images?|imgs?|frames?|photos?|left|scene_cam_\d+_final)(?:[_-]?(?:data|images?|left|preview|raw))*",
    re.IGNORECASE,
)
_CAMERA = re.compile(r"scene_(cam_\d+)_(?:final|geometry)", re.IGNORECASE)
MASK_NAME = re.compile(r"[._-]+mask$", re.IGNORECASE)
# Of several candidates the one that the data set's own protocol takes.
_TAKEN_FIRST = re.compile(r"[._-]tonemap$", re.IGNORECASE)
_PLAIN_DEPTH_FOLDER = re.compile(r"depths?", re.IGNORECASE)
_TIME = re.compile(r"(?:^|[^\d.])(\d+\.\d{2,})(?:-\d+)?$|^(\d{13}|\d{16}|\d{19})$")
_DIGITS_TO_SECONDS = {13: 1e-3, 16: 1e-6, 19: 1e-9}


def says_depth(path: PurePath) -> bool:
    """Whether a relative path says that it is depth: by what only depth is stored as, by its name, or by its folder."""
    suffix = path.suffix.lower()
    if suffix not in DEPTH_SUFFIXES or says_colour(path):
        return False
    if suffix in DEPTH_ONLY_SUFFIXES or DEPTH_NAME.search(path.stem):
        return True
    if folder_role(path) is not None:
        return folder_role(path) == "depth"
    return _LOOSE_DEPTH.search(path.stem) is not None and path.stem.lower().startswith("d")


def says_colour(path: PurePath) -> bool:
    """Whether a file's own name says that it is a picture."""
    return COLOUR_NAME.search(path.stem) is not None and path.suffix.lower() not in DEPTH_ONLY_SUFFIXES


def folder_role(path: PurePath) -> str | None:
    """What the nearest folder that says something says of a file: "depth", "colour" or nothing."""
    for part in reversed(path.parent.parts):
        if _DEPTH_FOLDER.fullmatch(part):
            return "depth"
        if _COLOUR_FOLDER.fullmatch(part):
            return "colour"
    return None


def strict_key(path: PurePath, depth: bool) -> str:
    """A relative path without suffix and without what tells its role."""
    role = DEPTH_NAME if depth else COLOUR_NAME
    # A name that is nothing but its role (`depth.png`) keeps it.
    return (path.parent / (role.sub("", path.stem) or path.stem)).as_posix()


def folded(key: str) -> str:
    """A key as file systems see it that make no difference between Unicode forms or cases."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", key).casefold())


def bare_folder(path: PurePath) -> str:
    """The folder of a relative path, without those that tell a role."""
    parts = []
    for part in path.parent.parts:
        camera = _CAMERA.match(part)
        if camera:
            parts.append(camera.group(1))
        elif not (_DEPTH_FOLDER.fullmatch(part) or _COLOUR_FOLDER.fullmatch(part)):
            parts.append(part)
    return "/".join(parts)


def bare_name(path: PurePath, depth: bool) -> str:
    """The name of a file without suffix and without anything that may tell its role."""
    return _COUNTED.sub("", (_LOOSE_DEPTH if depth else _LOOSE_COLOUR).sub("", path.stem)) or path.stem


def loose_key(path: PurePath, depth: bool) -> str:
    """`bare_folder` and `bare_name`, folded."""
    return folded(f"{bare_folder(path)}/{bare_name(path, depth)}")


def rank(path: PurePath) -> int:
    """0 for what is taken first where several files have one key, else 1."""
    told = any(_DEPTH_FOLDER.fullmatch(part) and not _CAMERA.match(part) for part in path.parent.parts)
    if told:
        return 0 if any(_PLAIN_DEPTH_FOLDER.fullmatch(part) for part in path.parent.parts) else 1
    if any(_CAMERA.match(part) for part in path.parent.parts):
        return 0 if _TAKEN_FIRST.search(path.stem) or path.suffix.lower() in DEPTH_ONLY_SUFFIXES else 1
    return 0 if _TAKEN_FIRST.search(path.stem) else 1


def time_s(path: PurePath) -> float | None:
    """The time that a file is named by: seconds with a fraction (TUM), or milli-, micro- or nanoseconds of an epoch."""
    found = _TIME.search(path.stem)
    if found is None:
        return None
    if found.group(1):
        return float(found.group(1))
    return int(found.group(2)) * _DIGITS_TO_SECONDS[len(found.group(2))]
