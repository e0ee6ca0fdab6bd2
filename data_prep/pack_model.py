"""Puts a trained model of ESC-10 into the package, with its accuracy, and writes NOTICE.

    python data_prep/pack_model.py --run runs/esc10 --recordings ESC-10 \\
        --command "python run.py --config=configs/esc10.py --workdir=runs/esc10"

Writes ergl_jax/pretrained/NAME/: the bundle's two files and about.json, which `ergl models` shows.
The accuracy is that of the run's test split. For a run that trained on all folds, take it from the
column "mean ± std" of a table in benchmarks/results/accuracy:

    --figures benchmarks/results/accuracy/esc10.json \\
    --table "Folds 1 to 4, each left out in turn" --row ERGL

`--recordings` is a copy of ESC-10 whose meta.csv has the columns title, author and licence. NOTICE
credits the recordings of the folds that the run trained or validated on.
"""

import dataclasses
import json
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ergl_jax import bundle as bundles
from ergl_jax import pretrained
from ergl_jax.datasets.esc import Recording, read_meta
from ergl_jax.errors import InputError, Parser, command
from ergl_jax.files import (
    atomic_write,
    atomic_write_together,
    local_path,
    make_directory,
    read_json,
)
from ergl_jax.training import workdirs

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 2_000_000
COLUMN = "mean ± std"  # begins its header
LICENCES = {  # the names in meta.csv
    "CC0": "CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY": "CC BY 3.0, https://creativecommons.org/licenses/by/3.0/",
    "CC-Sampling+": "Sampling+ 1.0 (transformed, for anything but advertising), "
    "https://creativecommons.org/licenses/sampling+/1.0/",
}
NOTICE = """ergl_jax
Licensed under the Apache License, Version 2.0 (LICENSE).

AudioSet's class names (Google): CC BY 4.0, https://creativecommons.org/licenses/by/4.0/

The model {name}, ergl_jax/pretrained/{name}, was trained on {count} recordings of ESC-10
(K. J. Piczak, 2015, https://doi.org/10.7910/DVN/YDEPUT, CC BY 3.0), which are parts of these
recordings on Freesound. AUTHOR: TITLE (NUMBER) is at
https://freesound.org/people/AUTHOR/sounds/NUMBER/. The package does not contain them.
"""


def notice(name: str, recordings: list[Recording]) -> str:
    """The text of NOTICE: a line for each author, by licence.

    InputError for a recording without author, title or licence, or of an unknown licence.
    """
    works: dict[str, dict[str, set[str]]] = {licence: defaultdict(set) for licence in LICENCES}
    for recording in recordings:
        if not (recording.author and recording.title):
            raise InputError(f"{recording.name} has no author or no title in the meta table")
        if recording.licence not in works:
            raise InputError(
                f"{recording.name} has licence {recording.licence!r}; known are {', '.join(works)}"
            )
        works[recording.licence][recording.author].add(f"{recording.title} ({_place(recording)})")
    parts = [NOTICE.format(name=name, count=len(recordings))]
    for licence, authors in works.items():
        if authors:
            lines = [
                f"  {author}: {'; '.join(sorted(authors[author]))}"
                for author in sorted(authors, key=str.casefold)
            ]
            parts.append("\n".join([LICENCES[licence], *lines, ""]))
    return "\n".join(parts)


def _place(recording: Recording) -> str:
    """The number of its original on Freesound, or another source's whole address."""
    match = re.fullmatch(
        r"https?://(?:www\.)?freesound\.org/people/(.+)/sounds/(\d+)/?", recording.source
    )
    return match[2] if match and unquote(match[1]) == recording.author else recording.source


def licence(recordings: list[Recording]) -> str:
    """The licences of the training clips, as text."""
    found = {recording.licence for recording in recordings}
    terms = [text.partition(", http")[0] for name, text in LICENCES.items() if name in found]
    return f"{', '.join(terms)}; authors in NOTICE"


def used_folds(run: Path, results: Mapping[str, Any], recordings: list[Recording]) -> list[str]:
    """The folds that a run trained or validated on; InputError unless it used all of their clips.

    Args:
      run: its work directory.
      results: its results.json.
      recordings: all of the corpus.
    """
    tested = {str(fold) for fold in read_json(run / "config.json")["data"]["test_folds"]}
    folds = sorted({recording.fold for recording in recordings} - tested)
    clips = results["clips"]
    wanted, found = clips["train"] + clips.get("validation", 0), Counter(r.fold for r in recordings)
    if wanted != (count := sum(found[fold] for fold in folds)):
        raise InputError(
            f"{run} used {wanted} clips, but folds {', '.join(folds)} of --recordings have {count}"
        )
    return folds


def tested_accuracy(run: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """The accuracy of a run's test split, as about.json has it."""
    if not results["test"]:
        raise InputError(f"{run} has no test split: give --figures, --table and --row")
    percent = f"{100 * results['test']['class_mean_accuracy']:.1f}"
    return {"accuracy": percent, "measured": f"{results['clips']['test']} test clips"}


def published_accuracy(figures: Path, caption: str, row: str) -> str:
    """The cell "mean ± std" of a row, found by its first cell; InputError without it."""
    for table in read_json(figures)["tables"]:
        for cells in table["rows"]:
            if (table["caption"], cells[0]) == (caption, row):
                for header, cell in zip(table["header"], cells, strict=True):
                    if header.startswith(COLUMN):
                        return cell
    raise InputError(f"{figures} has no table {caption!r} with a row {row!r} and a {COLUMN!r}")


@command(resumes=False)
def main(argv: list[str] | None = None) -> int:
    parser = Parser(description="Puts a trained model of ESC-10 into the package.")
    add = parser.add_argument
    add("--run", type=local_path, required=True, help="work directory of a finished run")
    add("--name", default=pretrained.DEFAULT, help="of the model in the package (%(default)s)")
    add("--recordings", type=local_path, required=True, help="a copy of ESC-10")
    add("--command", required=True, help="the command that trained it")
    add("--figures", default="", help="JSON with the accuracy, below the checkout")
    add("--table", default="", help="caption of its table")
    add("--row", default="", help="first cell of its row")
    add("--root", type=local_path, default=ROOT, help="checkout to write to (this one)")
    options = parser.parse_args(argv)

    if len({bool(x) for x in (options.figures, options.table, options.row)}) > 1:
        raise InputError("--figures, --table and --row go together: give all three, or none")
    run, root = options.run, options.root
    bundle, results = bundles.load(run), workdirs.read_results(run)
    recordings = read_meta(options.recordings, esc10=True)
    folds = used_folds(run, results, recordings)
    recordings = [recording for recording in recordings if recording.fold in folds]
    about: dict[str, Any]
    if options.figures:
        figures = {"file": options.figures, "table": options.table, "row": options.row}
        percent = published_accuracy(root / options.figures, options.table, options.row)
        about = {"accuracy": percent, "measured": options.table, "figures": figures}
    else:
        about = tested_accuracy(run, results) | {"figures": None}
    about |= {
        "trained": {
            "command": options.command,
            "date": time.strftime("%Y-%m-%d"),
            "dataset": "ESC-10",
            "folds": folds,
            "clips": len(recordings),
        },
        "versions": results["versions"],
    }
    credits = notice(options.name, recordings)
    directory = make_directory(root / "ergl_jax" / "pretrained" / options.name, "directory")
    with tempfile.TemporaryDirectory() as tmp_path:
        made = Path(tmp_path) / options.name
        dataclasses.replace(bundle, licence=licence(recordings)).save(made)
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        (made / pretrained.ABOUT).write_text(text, encoding="utf-8")
        size = sum(path.stat().st_size for path in made.iterdir())
        if size > MAX_BYTES:
            raise InputError(f"{run}: the model has {size} bytes; at most {MAX_BYTES} are packed")
        with atomic_write_together(directory) as fresh:
            shutil.copytree(made, fresh, dirs_exist_ok=True)
    with atomic_write(root / "NOTICE") as fresh:
        fresh.write_text(credits, encoding="utf-8")
    print(f"{directory}: {size} bytes, accuracy {about['accuracy']} % ({about['measured']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
