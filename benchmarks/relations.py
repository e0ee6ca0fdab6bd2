"""Does MEL see relations? The synthetic corpus with ERGL, without MEL, and with clip tokens.

    python benchmarks/relations.py --root runs/relations --seeds 0 1 2

Prints a Markdown table: test accuracy over all scenes, over the scenes of the relational pairs, and
over the others. The scenes of a pair hold the same events for the same share of time and differ
only in whether these sound over one another or in turn.
"""

import argparse
from pathlib import Path

import harness

from ergl_jax.datasets.synthetic import RELATIONAL_PAIRS

VARIANTS = {
    "ERGL": [],
    "without MEL": ["--config.model.mel=False"],
    'tokens="clip"': ["--config.model.tokens=clip"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("runs/relations"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at_once", type=int, default=2, help="runs that share the cores")
    parser.add_argument("overrides", nargs="*", help="--config.field=value for every run, after --")
    options = parser.parse_args()
    names = {
        (
            variant,
            seed,
        ): f"{variant.replace(' ', '-').replace('=', '-').replace(chr(34), '')}-{seed}"
        for seed in options.seeds
        for variant in VARIANTS
    }
    flags = {
        name: [
            "--config=configs/ergl.py:synthetic",
            f"--config.seed={seed}",
            *VARIANTS[variant],
            *options.overrides,
        ]
        for (variant, seed), name in names.items()
    }
    harness.run_all(flags, options.root, at_once=options.at_once)
    related = {scene for pair in RELATIONAL_PAIRS for scene in pair}
    rows = []
    for variant in VARIANTS:
        scores = [
            accuracies(options.root / names[variant, seed], related) for seed in options.seeds
        ]
        rows.append([variant, *map(harness.mean_std, zip(*scores, strict=True))])
    header = ["", "all scenes", "relational pairs", "other scenes", "event mAP"]
    print(harness.table(header, rows))


def accuracies(workdir: Path, related: set[str]) -> tuple[float, float, float, float]:
    """Accuracy over all clips, those of `related` scenes and the others, and the event mAP."""
    clips = harness.predictions(workdir)

    def accuracy(chosen) -> float:
        hits = [clip["scene"] == clip["predicted"] for clip in clips if chosen(clip["scene"])]
        return sum(hits) / len(hits)

    return (
        accuracy(lambda scene: True),
        accuracy(lambda scene: scene in related),
        accuracy(lambda scene: scene not in related),
        harness.results(workdir)["test"]["event_map"],
    )


if __name__ == "__main__":
    main()
