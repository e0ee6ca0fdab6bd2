"""A run from its configuration to its bundle.

A work directory holds config.json, metrics.jsonl, tensorboard/, checkpoints/ and, at the end,
results.json, bundle/, predictions.csv, confusion.csv and confusion.png. The same command in the
same work directory goes on where it stopped.
"""

from pathlib import Path

from ergl_jax import registry
from ergl_jax.bundle import check_target
from ergl_jax.bundle import load as load_bundle
from ergl_jax.datasets import sources
from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.datasets.events import read_list
from ergl_jax.errors import InputError
from ergl_jax.recipes import closed_form, stages
from ergl_jax.training import device_data, evaluate, hosts, losses, optimizer, workdirs
from ergl_jax.training.run import Run
from ergl_jax.training.step import check_batch_size


def train(config, workdir: Path) -> dict:
    """Trains a `config` (see configs/ergl.py) in `workdir`; returns what results.json holds.

    Raises InputError for a wrong field, data that can't be used, a work directory of another
    configuration, numbers that are no longer finite, or a full disk; Stopped after an epoch in
    which SIGTERM came.
    """
    _check(config)
    workdirs.check(config, workdir)
    each = list(stages.configs(config))  # all of them, before the first trains
    for _, stage in each:
        _check(stage)
    for name, stage in each:
        if not stages.is_done(stage, stages.directory(workdir, name)):
            print(f"Stage {name}", flush=True)
            train(stage, stages.directory(workdir, name))
    if hosts.is_main_process():
        workdirs.remove_unfinished(workdir)
    check_target(workdir / "bundle")  # now, not after the last epoch
    dataset = _open_dataset(config, f"train in {workdir}")
    if "train" not in dataset.sizes:
        raise InputError(f"dataset {dataset.name!r} has no training clips: mark rows as train")
    for scene, count in zip(dataset.scenes, dataset.class_sizes["train"], strict=True):
        if not count:
            where = config.data.manifest or f"dataset {dataset.name!r}"
            raise InputError(
                f"{where}: scene {scene!r} has no training clip that could be prepared: spell it "
                "in all rows as in those of train, or take them out"
            )
    run = Run(config, dataset, workdir)
    try:
        run.fit()
        return run.finish()
    finally:
        run.close()


def evaluate_bundle(config, workdir: Path) -> dict:
    """Evaluates `workdir/bundle` on the test split of `config.data`.

    Writes results.json, predictions and confusion matrix to `workdir/evaluation`; returns scores.
    """
    _check_threshold(config)
    bundle = load_bundle(workdir / "bundle")
    dataset = _open_dataset(config, f"evaluate {workdir}")
    directory = workdir / "evaluation"
    results = evaluate.test_bundle(
        bundle, dataset, threshold=config.data.event_threshold, directory=directory
    )
    if hosts.is_main_process():
        workdirs.write_json(directory / "results.json", results)
    return results


def _open_dataset(config, purpose: str) -> SceneDataset:
    """The dataset of `config.data`; of several processes the first prepares it.

    `purpose` is the same in all, as is the configuration.
    """
    hosts.check_same(config.to_json() + purpose, "their flags", "give all the same")
    dataset = hosts.main_process_first(lambda: sources.open_dataset(config.data))
    hosts.check_same(
        dataset.fingerprint, "their recordings", "let them share a disk, or copy as `cp -p` does"
    )
    return dataset


def _check(config) -> None:
    """InputError for the numbers of `config.train` that no other room looks at."""
    check_batch_size(config.train.batch_size)
    for name, seed in (
        ("seed", config.seed),
        ("data.validation_seed", config.data.validation_seed),
    ):
        if seed < 0:
            raise InputError(f"{name}={seed}: use 0 or more")
    for field in ("epochs", "validate_every", "select_from"):
        if config.train[field] < 1:
            raise InputError(f"train.{field}={config.train[field]}: use 1 or more")
    if config.train.select_from > config.train.epochs:
        raise InputError(
            f"train.select_from={config.train.select_from} is beyond the last epoch, "
            f"train.epochs={config.train.epochs}"
        )
    closed_form.check(config)
    registry.check_variant(config.model)
    if config.model.frozen and config.model.name != "pann_scene":
        raise InputError(
            f"model.frozen=True holds a pretrained PANN fixed, and model.name={config.model.name!r}"
            " is none: leave it out, or set model.name=pann_scene"
        )
    if config.model.name == "pann_scene" and not config.model.init_from:
        raise InputError(
            "model.name=pann_scene is a pretrained PANN: set model.init_from to a bundle of one, "
            "which data_prep/port_panns.py makes"
        )
    losses.check(config)
    _check_threshold(config)
    optimizer.check(config.optimizer, epochs=config.train.epochs)
    read_list(config.data.events)
    device_data.check_resident(config.data.resident)


def _check_threshold(config) -> None:
    if not 0 < config.data.event_threshold <= 1:
        raise InputError(
            f"data.event_threshold={config.data.event_threshold}: use more than 0, at most 1"
        )
