"""How well the systems of a table distinguish the two scenes of each pair of soundscapes.

    python run.py --config=configs/tables.py:main --config.source=soundscapes --config.seeds=0,1,2
    python benchmarks/scene_pairs.py runs/table-main-soundscapes

A clip counts as right if its scene is more probable than the other of its pair: chance is 50 %.
Prints mean and standard deviation over seeds as a Markdown table.
"""

from pathlib import Path

import harness

PAIRS = {
    "overlap or alternate (farm)": ("farm_alarm", "farm_answers"),
    "overlap or alternate (nursery)": ("nursery_restless", "nursery_settling"),
    "rate": ("waiting_room", "allergy_ward"),
    "foreground or background": ("beach", "air_rescue"),
}


def accuracy(workdir: Path, pair: tuple[str, str]) -> float:
    """The share of a pair's test clips whose own scene is the more probable one."""
    other = dict(zip(pair, reversed(pair), strict=True))
    clips = [clip for clip in harness.predictions(workdir) if clip["scene"] in pair]
    if not clips:
        raise harness.InputError(f"{workdir}/predictions.csv has no clip of {' or '.join(pair)}")
    return sum(float(c[c["scene"]]) > float(c[other[c["scene"]]]) for c in clips) / len(clips)


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("workdir", type=Path, help="of a table")
    runs: dict[str, list[Path]] = {}
    workdir = parser.parse_args().workdir
    for path in sorted(workdir.glob("*/seed*/predictions.csv")):
        runs.setdefault(path.parents[1].name, []).append(path.parent)
    if not runs:
        parser.error(f"{workdir} has no ROW/seed*/predictions.csv: train a table first")
    rows = [
        [name, len(seeds)]
        + [harness.mean_std([accuracy(seed, pair) for seed in seeds]) for pair in PAIRS.values()]
        for name, seeds in runs.items()
    ]
    print(harness.table(["row", "seeds", *PAIRS], rows))


if __name__ == "__main__":
    harness.start(main)
