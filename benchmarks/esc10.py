"""ERGL on ESC-10 against a CNN with the same encoder, trained the same way.

    python benchmarks/esc10.py --manifest data/esc10.csv --root runs/esc10 --seeds 0 1 2

Prints accuracy on the test fold as a Markdown table. metrics.jsonl in each of the work directories
has the loss and the accuracy of every epoch.
"""

from pathlib import Path

import harness

MODELS = ("ergl", "cnn")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--manifest", type=Path, default=Path("data/esc10.csv"))
    parser.add_argument("--root", type=Path, default=Path("runs/esc10"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at_once", type=harness.positive, default=2, help="runs that share cores")
    parser.add_argument("overrides", nargs="*", help="--config.field=value for every run, after --")
    options = parser.parse_args()
    flags = {
        f"{model}-{seed}": [
            "--config=configs/esc10.py",
            f"--config.data.manifest={options.manifest.resolve()}",
            f"--config.model.name={model}",
            f"--config.seed={seed}",
            *options.overrides,
        ]
        for seed in options.seeds
        for model in MODELS
    }
    harness.run_all(flags, options.root, at_once=options.at_once)
    rows = []
    for model in MODELS:
        found = [harness.results(options.root / f"{model}-{seed}") for seed in options.seeds]
        scores = [result["test"]["class_mean_accuracy"] for result in found]
        minutes = sum(result["training_seconds"] for result in found) / len(found) / 60
        each = ", ".join(f"{100 * score:.2f}" for score in scores)
        size = f"{found[0]['parameters']:,}"
        rows.append([model, size, each, harness.mean_std(scores), f"{minutes:.1f} min"])
    print(harness.table(["model", "parameters", "seeds", "mean ± std, %", "training"], rows))


if __name__ == "__main__":
    harness.start(main)
