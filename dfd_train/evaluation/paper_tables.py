"""The figures that the paper prints (Nazir et al., IEEE TCI 2023), as they are printed, faults included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

Figures = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row: its `method`, and what is `printed`, digit for digit, by the names of `metrics` (Make3D's depth as
    "c1_rmse", "c2_abs_rel", ...).
    """

    method: str
    printed: Mapping[str, str]

    @property
    def figures(self) -> Figures:
        """The same as numbers."""
        return {name: float(text) for name, text in self.printed.items()}


def _row(names: Sequence[str], method: str, *printed: str | None) -> PublishedRow:
    return PublishedRow(method=method, printed={n: v for n, v in zip(names, printed, strict=True) if v is not None})


_nyu = partial(_row, ("rmse", "abs_rel", "delta1", "delta2", "delta3", "psnr", "ssim"))
_make3d = partial(_row, ("c1_rmse", "c1_abs_rel", "c2_rmse", "c2_abs_rel", "psnr", "ssim"))

# Table II: the losses, by the names of `dfd-train --loss`.
TABLE2 = {
    "l1+charb": _nyu("L1 + Charb", "0.285", "0.035", "0.820", "0.880", "0.970", "33.55", "0.983"),
    "l1+l1": _nyu("L1 + L1", "0.292", "0.068", "0.799", "0.819", "0.891", "30.38", "0.90"),
    "l1grad+charb": _nyu("(L1+grad) + Charb", "0.244", "0.029", "0.901", "0.971", "0.989", "32.27", "0.918"),
    "l1+charbssim": _nyu("L1 + (Charb+SSIM)", "0.282", "0.031", "0.833", "0.895", "0.901", "33.85", "0.981"),
    "l1grad+charbssim": _nyu("(L1+grad) + (Charb+SSIM)", "0.241", "0.025", "0.914", "0.979", "0.995", "34.84", "0.989"),
}
# Table III: the heads, by the names of `dfd-train --heads`.
TABLE3 = {
    "deblur": _nyu("AiF head alone", None, None, None, None, None, "31.941", "0.919"),
    "depth": _nyu("depth head alone", "0.29", "0.075", "0.84", "0.89", "0.94", None, None),
    # As far as it is known digit for digit: rounded otherwise than the same network in Tables II and IV.
    "both": _nyu("both heads", "0.24", None, "0.91", "0.97", "0.99", "34.849", None),
}
# Table IV: other methods on NYU, by the names of `dfd-train --model` where this project has them.
TABLE4 = {
    "tang": _nyu("Tang et al.", "0.579", "0.132", "0.826", "0.936", "0.992", None, None),
    "chang": _nyu("Chang et al.", "0.433", "0.087", "0.930", "0.990", "0.999", None, None),
    "dong": _nyu("Dong et al.", "0.537", "0.146", "0.799", "0.951", "0.988", None, None),
    "song": _nyu("Song et al.", "0.154", "0.028", None, None, None, None, None),
    "d3net": _nyu("Carvalho et al. (D3-Net)", "0.144", "0.036", None, None, None, None, None),
    "gur": _nyu("Gur et al.", "0.766", "0.255", "0.691", "0.880", "0.944", None, None),
    "dncnn": _nyu("DnCNN", None, None, None, None, None, "32.43", "0.67"),
    "ircnn": _nyu("IRCNN", None, None, None, None, None, "35.46", "0.99"),
    "anwar": _nyu("Anwar et al.", "0.347", "0.094", None, None, None, "34.21", None),
    "2hded": _nyu("2HDED:NET", "0.244", "0.029", "0.914", "0.979", "0.995", "34.85", "0.99"),
}
MAKE3D = {
    "fu": _make3d("Fu et al.", "3.970", "0.157", "7.32", "0.162", None, None),
    "gur": _make3d("Gur et al.", "8.822", "0.568", "10.147", "0.575", None, None),
    "dncnn": _make3d("DnCNN", None, None, None, None, "23.16", "0.68"),
    "ircnn": _make3d("IRCNN", None, None, None, None, "27.09", "0.70"),
    "2hded": _make3d("2HDED:NET", "4.178", "0.153", "6.132", "0.170", "24.76", "0.78"),
}


def published_figures(source: str, method: str = "2hded", *, cap_m: float = 70.0) -> dict[str, float]:
    """What the paper prints for `method` on the kind of data `source`, by the names of `metrics`; NYU's for other data.

    On NYU the two-headed network has Table II's last row. On Make3D depth is up to C1, or C2 for `cap_m` 80. {} where the
    paper prints nothing.
    """
    if source != "make3d":
        row = TABLE2["l1grad+charbssim"] if method == "2hded" else TABLE4.get(method)
        return {} if row is None else dict(row.figures)
    row, which = MAKE3D.get(method), "c2_" if cap_m == 80 else "c1_"
    figures = {} if row is None else {name.removeprefix(which): value for name, value in row.figures.items()}
    return {name: value for name, value in figures.items() if not name.startswith(("c1_", "c2_"))}


FAULTS = (
    "Known faults of the printed figures: rows 1, 2 and 4 of Table II are impossible under the standard definitions "
    "(their delta values force AbsRel of at least .059, .083 and .063); Table IV mixes two rows; Table III rounds its row "
    "of both heads otherwise; the authors' metric script min-max normalises each depth map."
)
