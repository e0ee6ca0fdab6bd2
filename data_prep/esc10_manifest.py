"""Writes the manifest of ESC-10 (K. J. Piczak, 2015), for `configs/esc10.py`.

    python data_prep/esc10_manifest.py --root ESC-50-master --out data/esc10.csv

`--root` is a copy of ESC-50 (meta/esc50.csv and audio/, of which the rows marked esc10 are taken)
or a directory with a meta.csv of the columns filename, label, fold and source. The ten classes are
both the scenes and the events, under AudioSet's names; clips of one source are one group.
"""

import csv
import sys
from pathlib import Path

from ergl_jax.errors import InputError, Parser, command
from ergl_jax.files import atomic_write, local_path, make_directory
from ergl_jax.labels import AUDIOSET

# ESC-50's category, the older ESC-10's label where it differs, and AudioSet's name.
CLASSES = {
    "dog": "Dog",
    "dog_bark": "Dog",
    "rooster": "Chicken, rooster",
    "rain": "Rain",
    "sea_waves": "Waves, surf",
    "crackling_fire": "Fire",
    "fire_crackling": "Fire",
    "crying_baby": "Baby cry, infant cry",
    "baby_cry": "Baby cry, infant cry",
    "sneezing": "Sneeze",
    "person_sneeze": "Sneeze",
    "clock_tick": "Tick-tock",
    "helicopter": "Helicopter",
    "chainsaw": "Chainsaw",
}


def read_clips(root: Path) -> list[dict[str, str]]:
    """file (absolute), scene, fold and group of each clip of ESC-10 under `root`."""
    if (meta := root / "meta" / "esc50.csv").is_file():
        audio, label, source = root / "audio", "category", "src_file"
        rows = [row for row in _rows(meta) if row.get("esc10") == "True"]
    elif (meta := root / "meta.csv").is_file():
        audio, label, source = root, "label", "source"
        rows = _rows(meta)
    else:
        raise InputError(f"{root} has neither meta/esc50.csv nor meta.csv: is it a copy of ESC-50?")
    if not rows:
        raise InputError(f"{meta}: no clip of ESC-10")
    clips = []
    for row in rows:
        if missing := [name for name in ("filename", label, "fold", source) if not row.get(name)]:
            raise InputError(f"{meta}: a row without {missing[0]}: {row}")
        if row[label] not in CLASSES:
            raise InputError(f"{meta}: {row[label]!r} is not a class of ESC-10")
        clips.append(
            {
                "file": str((audio / row["filename"]).resolve()),
                "scene": row[label],
                "fold": row["fold"],
                "group": row[source],
            }
        )
    return clips


def _rows(meta: Path) -> list[dict[str, str]]:
    try:
        with open(meta, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{meta} can't be read as CSV in UTF-8: {error}") from error


def write_manifest(out: Path, clips: list[dict[str, str]]) -> None:
    """Clips with an event column for each class: 1 for the clip's own, else 0."""
    events = sorted({CLASSES[clip["scene"]] for clip in clips}, key=AUDIOSET.index)
    make_directory(out.parent, "directory")
    with atomic_write(out) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "scene", "fold", "group", *(f"event:{name}" for name in events)])
        for clip in clips:
            present = [int(CLASSES[clip["scene"]] == name) for name in events]
            writer.writerow([*clip.values(), *present])


@command(resumes=False)
def main(argv: list[str] | None = None) -> int:
    parser = Parser(description="Writes the manifest of ESC-10.")
    parser.add_argument("--root", type=local_path, required=True, help="a copy of ESC-50 or ESC-10")
    parser.add_argument("--out", type=local_path, default=Path("data/esc10.csv"))
    options = parser.parse_args(argv)
    clips = read_clips(options.root)
    write_manifest(options.out, clips)
    print(f"{len(clips)} clips in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
