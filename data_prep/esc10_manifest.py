"""Writes the manifest of ESC-10 (K. J. Piczak, 2015), for `configs/esc10.py`.

    python data_prep/esc10_manifest.py --root ESC-50-master --out data/esc10.csv

`--root` is a copy of ESC-50 (meta/esc50.csv and audio/; only the rows marked esc10 are used) or a
directory with a meta.csv of the columns filename, label, fold and source. The ten classes are both
the scenes and the events, under AudioSet's names; clips from one source are one group. With
--all_train every clip is for training, whatever its fold.
"""

import sys
from pathlib import Path

from ergl_jax.datasets.esc import read_meta
from ergl_jax.datasets.tables import write_table
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

LICENCE = "Per clip: CC0, CC BY or Sampling+ (see ESC-50)"


@command(resumes=False)
def main(argv: list[str] | None = None) -> int:
    parser = Parser(description="Writes the manifest of ESC-10.")
    parser.add_argument("--root", type=local_path, required=True, help="a copy of ESC-50 or ESC-10")
    parser.add_argument("--out", type=local_path, default=Path("data/esc10.csv"))
    text = "mark every clip for training instead of giving its fold"
    parser.add_argument("--all_train", action="store_true", help=text)
    options = parser.parse_args(argv)
    recordings = read_meta(options.root, esc10=True)
    labels = {recording.label for recording in recordings}
    if unknown := sorted(labels - CLASSES.keys()):
        raise InputError(f"{options.root}: {unknown[0]!r} in the meta table is no class of ESC-10")
    events = sorted({CLASSES[label] for label in labels}, key=AUDIOSET.index)
    make_directory(options.out.parent, "directory")
    part = "split" if options.all_train else "fold"
    columns = ["file", "scene", part, "group", "licence", *(f"event:{name}" for name in events)]
    rows = [
        (
            r.path.resolve(),
            r.label,
            "train" if options.all_train else r.fold,
            r.source,
            LICENCE,
            *(int(CLASSES[r.label] == e) for e in events),
        )
        for r in recordings
    ]
    with atomic_write(options.out) as tmp:
        write_table(tmp, columns, rows)
    print(f"{len(recordings)} clips in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
