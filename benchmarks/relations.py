"""Do edges help? The synthetic corpus with ERGL, without MEL, and with clip tokens.

    python benchmarks/relations.py --root runs/relations --seeds 0 1 2

Prints test accuracy as a Markdown table: over all scenes, over those of the relational pairs, and
over the others. The two scenes of a pair have the same events for the same share of time; these
overlap in one and alternate in the other.
"""

from pathlib import Path

import harness

from ergl_jax.datasets.synthetic import RELATIONAL_PAIRS

VARIANTS = {
    "ERGL": [],
    "without-MEL": ["--config.model.mel=False"],
    "tokens-clip": ["--config.model.tokens=clip"],
}


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--root", type=Path, default=Path("runs/relations"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at_once", type=harness.positive, default=2, help="runs that share cores")
    parser.add_argument("overrides", nargs="*", help="--config.field=value for every run, after --")
    options = parser.parse_args()
    config = "--config=configs/ergl.py:synthetic"
    flags = {
        f"{variant}-{seed}": [config, f"--config.seed={seed}", *fields, *options.overrides]
        for seed in options.seeds
        for variant, fields in VARIANTS.items()
    }
    harness.run_all(flags, options.root, at_once=options.at_once)
    rows = []
    for variant in VARIANTS:
        scores = [accuracies(options.root / f"{variant}-{seed}") for seed in options.seeds]
        rows.append([variant, *(harness.mean_std(list(x)) for x in zip(*scores, strict=True))])
    header = ["", "all scenes", "relational pairs", "other scenes", "event mAP"]
    print(harness.table(header, rows))


def accuracies(workdir: Path) -> tuple[float, float, float, float]:
    """Accuracy over all clips, those of related scenes and the others, and the event mAP."""
    related = {scene for pair in RELATIONAL_PAIRS for scene in pair}
    clips = harness.predictions(workdir)
    hits = {True: [], False: []}
    for clip in clips:
        hits[clip["scene"] in related].append(clip["scene"] == clip["predicted"])
    groups = (hits[True] + hits[False], hits[True], hits[False])
    accuracy = [sum(group) / len(group) for group in groups]
    return (*accuracy, harness.results(workdir)["test"]["event_map"])


if __name__ == "__main__":
    harness.start(main)
