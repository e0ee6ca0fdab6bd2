"""ERGL on ESC-10 against a CNN with the same encoder, trained the same way.

    python benchmarks/esc10.py --manifest data/esc10.csv --root runs/esc10 --folds 1 2 3 4 --seeds 0

Each fold is left out in turn and tested on. Prints accuracies as a Markdown table; metrics.jsonl in
each of the work directories has the loss and the accuracy of every epoch.
"""

import statistics
from pathlib import Path

import harness

MODELS = ("ergl", "cnn")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--manifest", type=Path, default=Path("data/esc10.csv"))
    parser.add_argument("--root", type=Path, default=Path("runs/esc10"))
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--models", choices=MODELS, nargs="+", default=MODELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at_once", type=harness.positive, default=2, help="runs that share cores")
    parser.add_argument("overrides", nargs="*", help="--config.field=value for every run, after --")
    options = parser.parse_args()
    runs = {
        model: [
            (f"{model}-fold{fold}-{seed}", fold, seed)
            for fold in options.folds
            for seed in options.seeds
        ]
        for model in options.models
    }
    flags = {
        name: [
            "--config=configs/esc10.py",
            f"--config.data.manifest={options.manifest.resolve()}",
            f"--config.data.test_folds=({fold},)",
            f"--config.model.name={model}",
            f"--config.seed={seed}",
            *options.overrides,
        ]
        for model, each in runs.items()
        for name, fold, seed in each
    }
    harness.run_all(flags, options.root, at_once=options.at_once)
    rows = []
    for model, each in runs.items():
        found = {name: harness.results(options.root / name) for name, *_ in each}
        score = {name: x["test"]["class_mean_accuracy"] for name, x in found.items()}
        by_fold = [
            harness.mean_std([score[name] for name, fold, _ in each if fold == wanted])
            for wanted in options.folds
        ]
        # Of each seed the mean over the folds, so that the deviation is that of whole repetitions.
        by_seed = [
            statistics.mean(score[name] for name, _, seed in each if seed == wanted)
            for wanted in options.seeds
        ]
        minutes = statistics.mean(x["training_seconds"] for x in found.values()) / 60
        size = f"{next(iter(found.values()))['parameters']:,}"
        rows.append([model, size, *by_fold, harness.mean_std(by_seed), f"{minutes:.1f} min"])
    header = ["model", "parameters", *(f"fold {fold}" for fold in options.folds)]
    print(harness.table([*header, "mean ± std, %", "training"], rows))


if __name__ == "__main__":
    harness.start(main)
