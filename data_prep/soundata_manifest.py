"""Writes the manifest of a public data set, with the labels that the library soundata reads.

    pip install ".[data]"
    python data_prep/soundata_manifest.py --dataset=esc50 --root=data/esc50 --out=data/esc50.csv
    python data_prep/soundata_manifest.py --dataset=tau2022uas_mobile --root=data/tau2022 \
      --subset=5 --out=data/tau2022_5.csv

`--root` is the data set's folder, as soundata unpacks it; `--download` downloads it there, and
`--validate` compares all checksums. The manifest has the data set's own classes, splits or folds,
and groups; docs/data.md lists them with the licences. Event labels are in an .npz next to the
manifest; in a long recording an event's label is its highest probability at any time.
"""

import argparse
import contextlib
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from public_layouts import LAYOUTS, OTHERS, Layout

from ergl_jax.datasets.tables import write_table
from ergl_jax.errors import InputError, Parser, command, require, warn
from ergl_jax.files import atomic_write, local_path, make_directory


@contextlib.contextmanager
def _soundata(what: str, remedy: str = "; --download fetches what is missing") -> Iterator[None]:
    """Turns any error of soundata into an InputError that names the file, or else `what`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # also of the network, and of metadata in another form
        name = getattr(error, "filename", None) or what
        text = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{name}: {text or type(error).__name__}{remedy}") from error


def _open(name: str, root: Path):
    """soundata's data set of that name."""
    require("soundata", "data")
    import urllib.request  # noqa: F401, soundata uses it without importing it

    import soundata

    return soundata.initialize(name, data_home=str(root))


def _clips(name: str, root: Path) -> list:
    """soundata's clips."""
    dataset = _open(name, root)
    if not Path(dataset.index_path).is_file():
        raise InputError(
            f"{dataset.index_path}: soundata's index of {name} is missing; add --download, or "
            f"--download index if {root} has the data already"
        )
    with _soundata(f"the metadata of {name} in {root}"):
        known = dataset._metadata  # read once, for all clips
        clips = [dataset.clip(clip_id) for clip_id in dataset.clip_ids]
    if known and (strange := [clip.clip_id for clip in clips if clip.clip_id not in known]):
        reason = f"has no metadata for {len(strange)} clips, such as {strange[0]}"
        raise InputError(f"{root}: {name} {reason}")
    return clips


def _download(name: str, root: Path, parts: list[str]) -> None:
    """Downloads and prints the named parts, by default those that the manifest needs."""
    dataset = _open(name, make_directory(root, "--root"))
    if not parts and (part := LAYOUTS[name].part):
        parts = [each for each in dataset.remotes if each.startswith(part)]
        parts += ["index"] * bool(dataset._index_data.remote)
    print(f"Downloading to {root}: {', '.join(parts or dataset.remotes)}", flush=True)
    with _soundata(f"soundata can't download {name}", remedy=""):
        dataset.download(partial_download=parts or None)


def _validate(name: str, root: Path) -> None:
    """InputError that names the first file that is missing or damaged."""
    with _soundata(f"soundata can't validate {name} in {root}"):
        results = _open(name, root).validate(verbose=False)
    for found, reason in zip(results, ("is missing", "has another checksum"), strict=True):
        paths = [path for kind in found.values() for each in kind.values() for path in each]
        paths = [path for path in paths if LAYOUTS[name].part in os.path.relpath(path, root)]
        if paths:
            raise InputError(f"{paths[0]} {reason}, one of {len(paths)}; --download fetches it")


def _rows(name: str, layout: Layout, clips: list) -> tuple[list[list[str]], list[dict]]:
    """The manifest's rows and the clips' events."""
    rows, events = [], []
    for clip in clips:
        with _soundata(clip.audio_path):
            cells = [str(get(clip)) for get in layout.columns.values()]
            licence = layout.licence if isinstance(layout.licence, str) else layout.licence(clip)
            rows.append([str(Path(clip.audio_path).resolve()), *cells, licence])
            events.append(dict(layout.events(clip)) if layout.events else {})
    if missing := [row[0] for row in rows if not Path(row[0]).is_file()]:
        raise InputError(
            f"{missing[0]}: no such file, one of {len(missing)} recordings of {name} that are "
            "missing; --download fetches them"
        )
    return rows, events


def _divide(name: str, columns: list[str], rows: list[list[str]]) -> None:
    """Makes two groups of one that the data set's own splits or folds divide, and says so."""
    part = next((c for c in ("split", "fold") if c in columns), None)
    if not part or "group" not in columns:
        return
    parts = defaultdict(set)
    at, group = columns.index(part), columns.index("group")
    for row in rows:
        parts[row[group]].add(row[at])
    divided = {each for each, found in parts.items() if len(found) > 1}
    for row in rows:
        if row[group] in divided:
            row[group] += f" ({part} {row[at]})"
    if divided:
        warn(
            f"{name}: clips of {len(divided)} groups, such as {min(divided)!r}, are in more than "
            f"one of its {part}s, and count as several groups"
        )


def _write_events(path: Path, files: list[str], events: list[dict]) -> int:
    """Writes the .npz next to a manifest; returns the number of events."""
    names = sorted({name for each in events for name in each})
    index = {name: i for i, name in enumerate(names)}
    probabilities = np.zeros((len(files), len(names)), np.float32)
    for row, each in zip(probabilities, events, strict=True):
        for event, probability in each.items():
            row[index[event]] = probability
    with atomic_write(path) as tmp, open(tmp, "wb") as file:
        np.savez_compressed(
            file, clip=np.array(files), events=np.array(names), probabilities=probabilities
        )
    return len(names)


def _parser() -> Parser:
    parser = Parser(
        description="Writes the manifest of a public data set.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--dataset", required=True, help=", ".join(LAYOUTS))
    add("--root", type=local_path, required=True, help="the data set's folder")
    add("--out", type=local_path, required=True, help="the manifest, a .csv")
    parts = "let soundata download it first: what the manifest needs, or the named parts"
    add("--download", nargs="*", metavar="PART", help=parts)
    add("--validate", action="store_true", help="let soundata compare all checksums")
    subset = "tau2022uas_mobile: N of the training list splitN.csv in --root, or a list's path"
    add("--subset", default="", help=subset)
    return parser


@command(resumes=False)
def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = _parser().parse_args(argv)
    name, root = args.dataset, args.root
    if name in OTHERS:
        raise InputError(f"--dataset={name} has neither scenes nor events, but {OTHERS[name]}")
    if name not in LAYOUTS:
        raise InputError(f"--dataset={name} is unknown: choose one of {', '.join(LAYOUTS)}")
    if args.subset and name != "tau2022uas_mobile":
        raise InputError(f"--subset is a flag of tau2022uas_mobile, not of {name}")
    make_directory(args.out.parent, "directory")
    if args.download is not None:
        _download(name, root, args.download)
    if not root.is_dir():
        raise InputError(f"--root={root}: no such folder; --download makes it")
    if args.validate:
        _validate(name, root)
    layout = LAYOUTS[name]
    clips = layout.clips(root, args.subset) if layout.clips else _clips(name, root)
    columns = ["file", *layout.columns, "licence"]
    rows, events = _rows(name, layout, clips)
    _divide(name, columns, rows)
    count = Counter(row[1] for row in rows)
    lines = [f"{len(rows)} clips of {len(count)} scenes in {args.out}"]
    if layout.events:
        path = args.out.with_name(f"{args.out.stem}.events.npz")
        lines.append(f"{_write_events(path, [row[0] for row in rows], events)} events in {path}")
    with atomic_write(args.out) as tmp:
        write_table(tmp, columns, rows)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
