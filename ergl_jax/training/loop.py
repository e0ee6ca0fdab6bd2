"""A run from its configuration to its bundle.

A work directory holds config.json, metrics.jsonl, tensorboard/, checkpoints/ and, at the end,
results.json, bundle/, predictions.csv, confusion.csv and confusion.png. The same command in the
same work directory goes on where it stopped.
"""

import dataclasses
import importlib.metadata
import json
import math
import platform
import time
from pathlib import Path

import flax
import jax
import jaxlib
import numpy as np
import optax
from tqdm import tqdm

import ergl_jax
from ergl_jax import models
from ergl_jax.datasets import batches, sources
from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.datasets.events import choose_events, read_list
from ergl_jax.errors import InputError, Stopped, postponed_sigterm
from ergl_jax.files import make_directory, replacing
from ergl_jax.inference.bundle import Bundle, check_target
from ergl_jax.inference.bundle import load as load_bundle
from ergl_jax.training import (
    calibration,
    evaluate,
    feed,
    hosts,
    optimizer,
    steps,
    transfer,
    workdirs,
    writers,
)
from ergl_jax.training.augment import make_augment
from ergl_jax.training.checkpoints import Checkpoints, Progress

VALIDATION_BATCH = 64  # clips a step, rounded up to a multiple of the devices


def train(config, workdir: Path) -> dict:
    """Trains a `config` (see configs/ergl.py) in `workdir`; returns what results.json holds.

    Raises InputError for a wrong field, data that can't be used, a work directory of another
    configuration, numbers that are no longer finite, or a full disk; Stopped after an epoch in
    which SIGTERM came.
    """
    _check(config)
    workdirs.check(config, workdir)
    if hosts.leads():
        workdirs.sweep(workdir)
    check_target(workdir / "bundle")  # now, not after the last epoch
    dataset = _open_dataset(config, f"train in {workdir}")
    if "train" not in dataset.sizes:
        raise InputError(f"dataset {dataset.name!r} has no training clips: mark rows as train")
    run = _Run(config, dataset, workdir)
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
    results = _test(bundle, dataset, config, directory)
    if hosts.leads():
        _write_json(directory / "results.json", results)
    return results


def _open_dataset(config, purpose: str) -> SceneDataset:
    """The dataset of `config.data`; of several processes the first prepares it.

    `purpose` is the same in all, as is the configuration.
    """
    hosts.check_same(config.to_json() + purpose, "their flags", "give all the same")
    dataset = hosts.leader_first(lambda: sources.open_dataset(config.data))
    hosts.check_same(
        dataset.fingerprint, "their recordings", "let them share a disk, or copy as `cp -p` does"
    )
    return dataset


def _check(config) -> None:
    """InputError for the numbers of `config.train` that no other room looks at."""
    steps.check_batch_size(config.train.batch_size)
    for name, seed in (
        ("seed", config.seed),
        ("data.validation_seed", config.data.validation_seed),
    ):
        if seed < 0:
            raise InputError(f"{name}={seed}: use 0 or more")
    for field in ("epochs", "validate_every"):
        if config.train[field] < 1:
            raise InputError(f"train.{field}={config.train[field]}: use 1 or more")
    _check_threshold(config)
    read_list(config.data.events)
    feed.check_resident(config.data.resident)


def _check_threshold(config) -> None:
    if not 0 < config.data.event_threshold <= 1:
        raise InputError(
            f"data.event_threshold={config.data.event_threshold}: use more than 0, at most 1"
        )


class _Run:
    """One training run: its data, compiled steps and state."""

    def __init__(self, config, dataset: SceneDataset, workdir: Path):
        self.config, self.dataset, self.workdir = config, dataset, workdir
        self.split = dataset.split("train")
        self.validation = "validation" in dataset.sizes
        self.events = _choose_events(config, dataset.events, self.split)
        first = batches.train_indices(len(self.split), config.train.batch_size, seed=0, epoch=0)
        length = {"steps_per_epoch": len(first), "epochs": config.train.epochs}
        optimiser = optimizer.adamw(config.optimizer, **length)
        self.rate = optimizer.learning_rate(config.optimizer, **length)
        sizes = {"num_scenes": len(dataset.scenes), "num_events": len(self.events)}
        model = models.build(config.model, **sizes, axis_name=steps.AXIS)
        self.trainer = steps.Trainer(
            model,
            optimiser,
            make_augment(config.augment),
            num_scenes=len(dataset.scenes),
            seed=config.seed,
            skip_nonfinite=config.train.skip_nonfinite,
        )
        self.predict = steps.make_predict(model)
        state = steps.init_state(
            model, optimiser, seed=config.seed, shape=self.split[0]["log_mel"].shape
        )
        self.parameters = sum(x.size for x in jax.tree.leaves(state.params))
        self.like = jax.device_get(state)
        self.progress, directory = Progress(), workdir / "checkpoints"
        # Asked together: a slower process would see what a faster one has made below.
        there = hosts.anywhere(directory.is_dir())
        self.checkpoints = Checkpoints(directory) if there else None
        if self.checkpoints and (restored := self.checkpoints.restore("latest", self.like)):
            state, self.progress = restored
            print(f"Going on after epoch {self.progress.epoch} of {workdir}", flush=True)
        elif (told := writers.epochs_written(workdir)) > 1:  # one was saved before line 2
            raise InputError(
                f"{workdir / 'metrics.jsonl'} tells of {told} epochs, and {directory} has no "
                "checkpoint to go on from: put it back, or start anew beside this run with --fresh"
            )
        elif config.model.init_from:
            state, source = transfer.start_encoder(state, config.model, dataset.front_end)
            self.progress = Progress(source=source)
        # Here, where data and settings have proved good: a mistake takes no directory.
        self.writer = None
        if hosts.leads():
            make_directory(workdir, "workdir")
            _write_json(workdir / "config.json", json.loads(config.to_json()))
            self.writer = writers.MetricWriter(workdir, done=self.progress.epoch)
        hosts.check_shared(workdir / "config.json")
        self.checkpoints = self.checkpoints or Checkpoints(directory)
        self.state = steps.replicate(state)

    def fit(self) -> None:
        """All epochs that are still to do."""
        config = self.config.train
        if self.progress.epoch >= config.epochs:
            return
        resident = feed.is_resident(self.config.data.resident, self.split)
        data = steps.replicate(feed.load(self.split, self.events)) if resident else None
        bar = tqdm(
            range(self.progress.epoch + 1, config.epochs + 1),
            initial=self.progress.epoch,
            total=config.epochs,
            desc="epochs",
            unit="epoch",
            disable=not hosts.leads(),
        )
        with bar, postponed_sigterm() as sigterm:
            for epoch in bar:
                start = time.perf_counter()
                values = self._epoch(epoch, data, bar)
                if epoch % config.validate_every == 0 or epoch == config.epochs:
                    values |= self._validate()
                # First: a resumed run drops lines of unsaved epochs.
                if self.writer:
                    self.writer.write(epoch, values)
                self._save(epoch, values, time.perf_counter() - start)
                bar.set_postfix_str(_line(values))
                if hosts.anywhere(bool(sigterm)):
                    raise Stopped(
                        f"stopped by SIGTERM: epoch {epoch} of {config.epochs} is saved in "
                        f"{self.workdir}, and the same command goes on"
                    )

    def _epoch(self, epoch: int, data, bar: tqdm) -> dict[str, float]:
        """Trains an epoch; the means of its steps' metrics, and clips a second."""
        start = time.perf_counter()
        indices = batches.train_indices(
            len(self.split), self.config.train.batch_size, seed=self.config.seed, epoch=epoch
        )
        if data is not None:
            self.state, metrics = self.trainer.epoch(self.state, data, indices)
        else:
            each = []
            for number, batch in enumerate(feed.local_batches(self.split, self.events, indices)):
                self.state, values = self.trainer.step(self.state, batch)
                each.append(values)
                bar.set_postfix_str(f"step {number + 1}/{len(indices)}")
            metrics = steps.stack(each)
        elapsed = time.perf_counter() - start
        finite = metrics.pop("finite") > 0
        skip = self.config.train.skip_nonfinite
        # An epoch that skips all its updates is no training.
        if not (finite.any() if skip else finite.all()):
            self._diverged(epoch, indices, metrics, int(np.argmin(finite)))
        values = {name: float(x[finite].mean()) for name, x in metrics.items()}
        if skip:
            values["skipped"] = int((~finite).sum())
        return values | {"clips_per_second": indices.size / elapsed}

    def _diverged(self, epoch: int, indices: np.ndarray, metrics: dict, bad: int) -> None:
        """The InputError of an epoch whose step `bad` was its first that is not finite."""
        done = (epoch - 1) * len(indices) + bad
        numbers = {name: metrics[name][bad] for name in ("scene_loss", "event_loss")}
        numbers |= {
            "gradient_norm": metrics["gradient_norm"][bad],
            # The schedule counts updates, and those that were skipped are none.
            "learning_rate": self.rate(done - self.progress.skipped),
        }
        parts = ", ".join(f"{name}={value:.4g}" for name, value in numbers.items())
        clips = ", ".join(self.split[int(row)]["name"] for row in indices[bad])
        what = "loss" if not np.isfinite(metrics["loss"][bad]) else "gradient or the update"
        raise InputError(
            f"the {what} is not finite at step {done + 1} of epoch {epoch} ({parts}), by the clips "
            f"{clips}. The last checkpoint is kept; try a lower --config.optimizer.learning_rate, "
            "some --config.optimizer.warmup_epochs, or --config.train.skip_nonfinite, with --fresh"
        )

    def _validate(self) -> dict[str, float]:
        if not self.validation:
            return {}
        variables = {"params": self.state.params, "batch_stats": self.state.batch_stats}
        values = evaluate.scores(
            self._predict_validation(variables),
            self.events,
            threshold=self.config.data.event_threshold,
        )
        return {f"validation_{name}": x for name, x in values.items() if x is not None}

    def _predict_validation(self, variables) -> evaluate.Predictions:
        """By replicated variables."""
        return evaluate.predict(
            self.predict, variables, self.dataset.split("validation"), _batch_size()
        )

    def _calibrate(self, variables: dict) -> tuple[float, dict | None]:
        """The temperature by validation, 1 without it, and what it changes there."""
        if not self.validation:
            return 1.0, None
        found = self._predict_validation(steps.replicate(variables))
        temperature = calibration.fit_temperature(found.scene_logits, found.scene)
        return temperature, evaluate.calibration_errors(found, temperature)

    def _save(self, epoch: int, values: dict, seconds: float) -> None:
        """Keeps the state as latest, and as best where validation says so."""
        self.progress = dataclasses.replace(
            self.progress,
            epoch=epoch,
            seconds=self.progress.seconds + seconds,
            skipped=self.progress.skipped + values.get("skipped", 0),
        )
        accuracy = values.get("validation_class_mean_accuracy")  # None: not validated
        # The later of equals: it has trained longer, at a lower rate if that falls.
        better = accuracy is not None and accuracy >= self.progress.best_accuracy
        better = hosts.anywhere(better)
        if better:
            self.progress = dataclasses.replace(
                self.progress, best_epoch=epoch, best_accuracy=accuracy
            )
        state = steps.unreplicate(self.state)
        if better:
            self.checkpoints.save("best", state, self.progress)
        self.checkpoints.save("latest", state, self.progress)

    def finish(self) -> dict:
        """Tests the best state (the last one without validation) and writes bundle and results."""
        config, dataset = self.config, self.dataset
        best = self.checkpoints.restore("best", self.like) if self.validation else None
        # The last epoch without validation, or where its user moved a damaged best away.
        state, progress = best or self.checkpoints.restore("latest", self.like)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        temperature, calibrated = self._calibrate(variables)
        bundle = Bundle(
            model=config.model.to_dict(),
            variables=variables,
            scenes=dataset.scenes,
            events=tuple(dataset.events[index] for index in self.events),
            front_end=dataset.front_end,
            clip_seconds=dataset.clip_seconds,
            pad=dataset.pad,
            licence=dataset.licence,
            dataset=dataset.name,
            source=self.progress.source,
            temperature=temperature,
        )
        if hosts.leads():
            bundle.save(self.workdir / "bundle")
        results = {
            "test": None,
            "epoch": progress.epoch,
            "validation_class_mean_accuracy": progress.best_accuracy if best else None,
            "temperature": temperature,
            "validation_calibration": calibrated,
            "parameters": self.parameters,
            "source": self.progress.source,
            "clips": dataset.sizes,
            "skipped_updates": self.progress.skipped,
            "training_seconds": self.progress.seconds,
            "devices": [device.device_kind for device in jax.devices()],
            "versions": versions(),
        }
        if "test" in dataset.sizes:
            results["test"] = _test(bundle, dataset, config, self.workdir)
        if hosts.leads():
            _write_json(self.workdir / "results.json", results)
        return results

    def close(self) -> None:
        if self.writer:
            self.writer.close()
        self.checkpoints.close()


def _choose_events(config, names, split) -> np.ndarray:
    """Columns of the events that become nodes; none for a model without events."""
    if config.model.name == "cnn":
        return np.zeros(0, int)
    labels = np.stack([split[index]["events"] for index in range(len(split))])
    return choose_events(names, labels, ranking=config.data.events, count=config.data.num_events)


def _test(bundle: Bundle, dataset: SceneDataset, config, directory: Path) -> dict:
    """Scores on the test split, its files written to `directory`, which is made if need be."""
    predictions, scores = evaluate.evaluate(
        bundle,
        dataset,
        threshold=config.data.event_threshold,
        batch_size=_batch_size(),
    )
    if hosts.leads():
        make_directory(directory, "directory")  # here: what can't be evaluated leaves none
        evaluate.write(directory, predictions, dataset.split("test"), bundle)
    return scores


def _batch_size() -> int:
    """Clips at a time that are evaluated."""
    devices = jax.local_device_count()
    return math.ceil(VALIDATION_BATCH / devices) * devices


def _line(values: dict[str, float]) -> str:
    """An epoch in a progress line."""
    parts = [f"loss {values['loss']:.3f}"]
    parts += [f"scene {values['scene_loss']:.3f}", f"event {values['event_loss']:.4f}"]
    parts += [f"train {100 * values['accuracy']:.1f} %"]
    if "validation_class_mean_accuracy" in values:
        parts += [f"validation {100 * values['validation_class_mean_accuracy']:.1f} %"]
    return ", ".join([*parts, f"{values['clips_per_second']:.0f} clips/s"])


def versions() -> dict[str, str]:
    """What a log should say of the software that made it."""
    return {
        "ergl_jax": ergl_jax.__version__,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
        "orbax": importlib.metadata.version("orbax-checkpoint"),
    }


def _write_json(path: Path, value: dict) -> None:
    with replacing(path) as beside:
        beside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
