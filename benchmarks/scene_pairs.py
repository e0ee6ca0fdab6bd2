"""How well the systems of a table tell the two scenes of each pair of soundscapes apart.

    python run.py --config=configs/tables.py:main --config.source=soundscapes --config.seeds=0,1,2
    python benchmarks/scene_pairs.py runs/table-main-soundscapes

A clip counts as right where its own scene is more probable than the other of its pair, whatever the
other six are: chance is 50 %. Mean and standard deviation over seeds.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

PAIRS = {
    "over or in turn (farm)": ("farm_alarm", "farm_answers"),
    "over or in turn (nursery)": ("nursery_restless", "nursery_settling"),
    "rate": ("waiting_room", "allergy_ward"),
    "foreground or background": ("beach", "air_rescue"),
}


def right(predictions: Path, pair: tuple[str, str]) -> float:
    """The share of a pair's test clips that are right by predictions.csv, in per cent."""
    with open(predictions, newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["scene"] in pair]
    other = dict(zip(pair, reversed(pair), strict=True))
    wins = [float(line[line["scene"]]) > float(line[other[line["scene"]]]) for line in lines]
    return 100 * float(np.mean(wins))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdir", type=Path, help="of a table")
    rows = {}
    for predictions in sorted(parser.parse_args().workdir.glob("*/seed*/predictions.csv")):
        rows.setdefault(predictions.parents[1].name, []).append(predictions)
    print("| row | seeds | " + " | ".join(PAIRS) + " |\n" + "|---" * (2 + len(PAIRS)) + "|")
    for name, files in rows.items():
        cells = []
        for pair in PAIRS.values():
            values = np.array([right(file, pair) for file in files])
            spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.1f}{spread}")
        print(f"| {name} | {len(files)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
