"""Gather what `dfd-reproduce` left in its folders into one that can be published.

    python benchmarks/paper/collect_results.py RUNS/table2 RUNS/table3 ... --out docs/results [--note TEXT]

Of each folder the table (Markdown) and `results.json` (command, commit, versions, and of every run its scores, samples/s
and settings), named after the folder. Where the folders lay is left out; weights and pictures are not copied. `--note`:
what a reader of any of the tables has to know of the data.
"""

import argparse
import json
from pathlib import Path


def relative(value, place):
    """`value`, of JSON, with `place`/ taken off every text."""
    if isinstance(value, dict):
        return {key: relative(one, place) for key, one in value.items()}
    if isinstance(value, list):
        return [relative(one, place) for one in value]
    return value.replace(f"{place}/", "") if isinstance(value, str) else value


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", default="")
    given = parser.parse_args()
    missing = [folder for folder in given.folders if not (folder / "results.json").is_file()]
    if missing:
        parser.error(f"{missing[0]} holds no results.json: is the command finished?")
    given.out.mkdir(parents=True, exist_ok=True)
    for folder in given.folders:
        place = folder.resolve().parent
        content = json.loads((folder / "results.json").read_text())
        # What no run of another machine needs: where the store lay is in the command.
        text = json.dumps(relative(content, place), indent=1) + "\n"
        (given.out / f"{folder.name}.json").write_text(text)
        table = (folder / f"{content['table']}.md").read_text()
        facts = f"`{relative(content['command'], place)}`, commit {content['commit']}, {content['versions']['device']}."
        rates = ", ".join(f"{name} {run['samples_per_s']:.3g}" for name, run in content["runs"].items())
        parts = [relative(table, place).strip(), *([given.note] if given.note else []), facts, f"Samples/s: {rates}."]
        (given.out / f"{folder.name}.md").write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
