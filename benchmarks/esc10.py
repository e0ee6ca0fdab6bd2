"""ERGL on ESC-10 beside a plain CNN of the same encoder, trained the same way.

    python benchmarks/esc10.py --manifest data/esc10.csv --root runs/esc10 --seeds 0 1 2

Prints Markdown: a table of accuracy on the test fold, and the loss and training accuracy of every
epoch of every run.
"""

import argparse
from pathlib import Path

import harness

MODELS = ("ergl", "cnn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, default=Path("data/esc10.csv"))
    parser.add_argument("--root", type=Path, default=Path("runs/esc10"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at_once", type=int, default=2, help="runs that share the cores")
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
        seconds = [result["training_seconds"] for result in found]
        each = ", ".join(f"{100 * score:.2f}" for score in scores)
        rows.append(
            [
                model,
                f"{found[0]['parameters']:,}",
                each,
                harness.mean_std(scores),
                f"{sum(seconds) / len(seconds) / 60:.1f} min",
            ]
        )
    print(harness.table(["model", "parameters", "seeds", "mean ± std, %", "training"], rows))
    print("\nLoss and training accuracy (%) after each epoch:\n")
    logs = {name: harness.epochs(options.root / name) for name in flags}
    rows = [
        [lines[0]["epoch"], *(f"{x['loss']:.3f} / {100 * x['accuracy']:.0f}" for x in lines)]
        for lines in zip(*logs.values(), strict=True)
    ]
    print(harness.table(["epoch", *logs], rows))


if __name__ == "__main__":
    main()
