"""`dfd-prepare preview`, `info`, `verify`, `merge`: what is done with stores that are there."""

from __future__ import annotations

import json
from pathlib import Path

import click
from dfd_cli.support.errors import OneLineCommand
from dfd_cli.support.help import under
from dfd_cli.support.logging import sample_progress
from dfd_cli.support.output import say
from dfd_cli.support.parameters import OutputPath, not_an_input
from dfd_cli.support.summary import info_json, info_lines

from defocus_sim.errors import ShardCorruptError

WHAT = "Options"


@click.command(cls=OneLineCommand, examples=("dfd-prepare preview nyu.zarr --samples 4 --out sheet.png",))
@click.argument("store")
@under(WHAT, "--samples", type=click.IntRange(min=1), metavar="N", default=8, help="Rows of the sheet.")
@under(
    WHAT,
    "--out",
    type=OutputPath(dir_okay=False),
    metavar="FILE",
    show_default="<STORE>_contact_sheet.png",
    help="The picture.",
)
def preview(store: str, samples: int, out: Path | None) -> None:
    """A contact sheet: defocused, all in focus, depth, signed sigma."""
    from defocus_sim.pictures.preview import save_contact_sheet, sheet_path
    from defocus_sim.shards.store import open_store

    not_an_input(out, store)
    say(save_contact_sheet(open_store(store), out or sheet_path(store), samples))


@click.command(cls=OneLineCommand, examples=("dfd-prepare info nyu.zarr",))
@click.argument("store")
@under(WHAT, "--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(store: str, as_json: bool) -> None:
    """What a store holds and how it was made."""
    from defocus_sim.shards.store import open_store

    if as_json:
        say(json.dumps(info_json(open_store(store)), indent=2))
        return
    say("\n".join(info_lines(open_store(store))))


@click.command(cls=OneLineCommand, examples=("dfd-prepare verify nyu.zarr",))
@click.argument("store")
@under(WHAT, "--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def verify(store: str, as_json: bool) -> None:
    """Read every byte of a store and check it; names what is damaged."""
    from defocus_sim.shards.store import open_store, verify_store

    opened = open_store(store, check_files=False)
    counts = {
        "shard_files": sum(1 for _ in opened.records()),
        "metadata_files": len(opened.metadata_records()),
        # Of other programs' stores, of which nobody says what was written.
        "samples": sum(len(opened.split(name)) for name in opened.split_names) if opened.foreign else 0,
    }
    total, damaged = sum(counts.values()), list[str]()
    with sample_progress("verifying", unit="samples" if opened.foreign else "files") as report:
        for done, (_, problem) in enumerate(verify_store(opened), start=1):
            report(done - 1, total)
            if problem is not None:
                damaged.append(problem)
                if not as_json:
                    say(problem)
    if as_json:
        say(json.dumps({"store": store, **counts, "damaged": damaged}, indent=2))
    if damaged:
        raise ShardCorruptError(
            f"{len(damaged)} of {total} {'samples' if opened.foreign else 'files'} of {store} are damaged"
        )
    if not as_json:
        say(f"{store}: {_sound_text(**counts)}")


def _sound_text(shard_files: int, metadata_files: int, samples: int) -> str:
    if samples:
        return f"all {samples} samples can be read; there are no checksums of ours that say what was written"
    more = (
        f"the {metadata_files} of metadata too"
        if metadata_files
        else "metadata are not covered: an earlier version wrote it"
    )
    return f"all {shard_files} shard files are as they were written; {more}"


@click.command(cls=OneLineCommand, examples=("dfd-prepare merge a.zarr b.zarr --out both.zarr",))
@click.argument("stores", nargs=-1, required=True)
@under(WHAT, "--out", required=True, metavar="PLACE", help="The joined store.")
@under(WHAT, "--overwrite", is_flag=True, help="Replace an existing store.")
def merge(stores: tuple[str, ...], out: str, overwrite: bool) -> None:
    """Join STORES of one image size, without compressing again; each sample keeps its lens."""
    from defocus_sim.convert.merge import merge as merge_stores

    with sample_progress("merging") as report:
        joined = merge_stores(stores, out, overwrite=overwrite, on_progress=report)
    say("\n".join(info_lines(joined)))
