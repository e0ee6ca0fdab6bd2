"""A training run from top to bottom: data, model, epochs, test, bundle.

A work directory has config.json, metrics.jsonl, tensorboard/, checkpoints/ and, at the end,
results.json, bundle/, predictions.csv, confusion.csv and confusion.png. The same command in the
same work directory resumes after the last checkpoint.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ergl_jax import bundle as bundles
from ergl_jax import known
from ergl_jax.config import Config
from ergl_jax.datasets import batches, sources
from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.datasets.events import choose_events, read_list
from ergl_jax.datasets.manifest import Corpus
from ergl_jax.errors import InputError, Stopped, postponed_sigterm
from ergl_jax.files import make_directory
from ergl_jax.systems import OF_EVENTS_ALONE, SYSTEMS
from ergl_jax.training import (
    device_data,
    evaluate,
    hosts,
    macs,
    metric_writer,
    metrics,
    step,
    transfer,
    workdirs,
)
from ergl_jax.training.build import build
from ergl_jax.training.checkpoints import Checkpoints, Progress

Fit = Callable[[dict, Callable, SceneDataset], dict]


def train(
    config: Config,
    workdir: Path,
    *,
    initialise: Callable[[step.TrainState], step.TrainState] | None = None,
    fit: Fit | None = None,
    extra_seconds: float = 0.0,
) -> dict:
    """Trains in `workdir`; returns the content of results.json.

    Args:
      config: validated.
      workdir: new, or of a run with the same configuration, which is then resumed.
      initialise: changes the state before the first step, such as to weights of an earlier run.
      fit: (variables, predict, dataset) -> variables, in place of the epochs; predict is by
        `step.make_predict`.
      extra_seconds: training time of earlier runs that this one builds on, for results.json.

    Raises:
      InputError: unusable data, a work directory of another run, a non-finite loss, a full disk.
      Stopped: SIGTERM came; the epoch is finished and saved.
    """
    step.check_batch_size(config.train.batch_size)
    workdirs.check(workdir, config.to_dict())
    if hosts.is_main_process():
        workdirs.remove_unfinished(workdir)
    bundles.check_target(workdir / "bundle")  # now, not after the last epoch
    listed = read_list(config.data.events)  # a wrong list is reported before data is prepared
    corpus = sources.corpus(config.data)
    sources.check(
        config.data,
        corpus,
        batch_size=config.train.batch_size,
        events=SYSTEMS[config.model.name].events,
        listed=listed,
    )
    dataset = device_data.open_dataset(config.data, corpus)
    sources.check_prepared(config.data, dataset)
    if hosts.is_main_process():
        sources.warn_of_one_scene(config.data.manifest or dataset.name, dataset.class_sizes)
        if config.model.name == "ergl_dynamic" and config.train.loss != "frames":
            sources.warn_of_labels(config.data, corpus, config.model.pooling)
    run = _Run(config, workdir, dataset, listed)
    run.start(initialise)
    try:
        if run.progress.epoch < config.train.epochs:
            run.fit_closed_form(fit) if fit else run.train_epochs()
        return run.finish(corpus, extra_seconds)
    finally:
        run.close()


class _Run:
    """The model, everything that trains it, and its progress."""

    def __init__(self, config: Config, workdir: Path, dataset: SceneDataset, listed: list[str]):
        self.config, self.workdir, self.dataset = config, workdir, dataset
        self.split = dataset.split("train")
        self.validation = dataset.split("validation") if "validation" in dataset.sizes else None
        # The best epoch on validation is the result, else the last; without scenes there is none.
        scenes = config.train.loss not in OF_EVENTS_ALONE or config.train.trainer != "sgd"
        self.selects = self.validation is not None and scenes
        system = SYSTEMS[config.model.name]
        if system.events:
            scene, events = device_data.labels(self.split)
        else:  # its losses use no label statistics
            scene, events = np.zeros(len(self.split), int), np.zeros((len(self.split), 0))
        self.events = np.zeros(0, int)  # (n,), indices of those to learn
        if system.events:
            data = config.data
            self.events = choose_events(
                dataset.events, events, count=data.num_events, listed=listed, source=data.events
            )
        self.data = {
            "scenes": list(dataset.scenes),
            "events": [dataset.events[index] for index in self.events],
            "clips": dict(dataset.sizes),
            "fingerprint": dataset.fingerprint,
        }
        model, adamw, self.schedule, self.trainer = build(
            config, scene=scene, events=events[:, self.events], num_scenes=len(dataset.scenes)
        )
        self.model, self.predict = model, step.make_predict(model)
        self.shape = self.split[0]["log_mel"].shape  # (F, M)
        self.state = step.init_state(model, adamw, seed=config.seed, shape=self.shape)
        step.check_crop(model, self.state, shape=self.shape, crop=config.augment.crop)
        self.template, self.progress = jax.device_get(self.state), Progress()

    def start(self, initialise: Callable | None) -> None:
        """Resumes after the last checkpoint, or initialises; opens the work directory."""
        config, directory = self.config, self.workdir / "checkpoints"
        # All processes look before any of them creates the directory below.
        checkpoints = Checkpoints(directory) if hosts.any_process(directory.is_dir()) else None
        if checkpoints and (restored := checkpoints.restore("latest", self.template)):
            self.state, self.progress = restored
            workdirs.check_data(self.workdir, self.progress.data, self.data)
            print(f"Resuming after epoch {self.progress.epoch} of {self.workdir}", flush=True)
        else:
            if config.train.trainer == "sgd":  # else it is fitted anew
                metric_writer.check_no_logs(self.workdir)
            self.state, source = transfer.initialise(self.state, config.model, self.dataset)
            self.progress = Progress(source=source, data=self.data)
            self.state = initialise(self.state) if initialise else self.state
        # Not earlier: wrong data or settings must not leave a directory behind.
        self.writer = None
        if hosts.is_main_process():
            make_directory(self.workdir, "workdir")
            workdirs.write_json(self.workdir / "config.json", config.to_dict())
            self.writer = metric_writer.MetricWriter(self.workdir, done=self.progress.epoch)
        hosts.check_shared(self.workdir / "config.json")
        self.checkpoints = checkpoints or Checkpoints(directory)
        self.state = step.replicate(self.state)

    def train_epochs(self) -> None:
        """The epochs that are left, by gradient descent."""
        config = self.config.train
        resident = device_data.is_resident(self.config.data.resident, self.split)
        data = step.replicate(device_data.load(self.split, self.events)) if resident else None
        bar = metric_writer.progress_bar(self.progress.epoch, config.epochs)
        with bar, postponed_sigterm() as sigterm:
            for epoch in bar:
                start = time.perf_counter()
                values = self.train_epoch(epoch, data, bar)
                if epoch % config.validate_every == 0 or epoch == config.epochs:
                    values |= self.validate()
                self.save(epoch, values, time.perf_counter() - start)
                bar.set_postfix_str(metric_writer.summary(values))
                if hosts.any_process(bool(sigterm)):
                    raise Stopped(
                        f"stopped by SIGTERM: epoch {epoch} of {config.epochs} is saved in "
                        f"{self.workdir}; the same command resumes after it"
                    )

    def train_epoch(self, epoch: int, data: dict | None, bar: tqdm) -> dict[str, float]:
        """Means of the metrics of an epoch's steps, and clips per second."""
        config, seed, start = self.config.train, self.config.seed, time.perf_counter()
        indices = batches.train_indices(len(self.split), config.batch_size, seed=seed, epoch=epoch)
        if data is not None:
            self.state, found = self.trainer.epoch(self.state, data, indices)
        else:
            each, stream = [], device_data.local_batches(self.split, self.events, indices)
            for number, batch in enumerate(stream):
                self.state, step_metrics = self.trainer.step(self.state, batch)
                each.append(step_metrics)
                bar.set_postfix_str(f"step {number + 1}/{len(indices)}")
            found = step.stack(each)
        elapsed = time.perf_counter() - start
        finite = found.pop("finite") > 0
        # An epoch that skips all its updates trains nothing.
        if not (finite.any() if config.skip_nonfinite else finite.all()):
            bad = int(np.argmin(finite))
            done = (epoch - 1) * len(indices) + bad
            rate = self.schedule(done - self.progress.skipped)  # the schedule counts updates
            what, numbers = step.describe_nonfinite(found, bad)
            raise InputError(
                f"the {what} is not finite at step {done + 1} of epoch {epoch} ({numbers}, "
                f"learning_rate={rate:.4g}), with the clips "
                f"{', '.join(self.split[int(row)]['name'] for row in indices[bad])}. The last "
                "checkpoint is kept; try with --fresh a lower optimizer.learning_rate, "
                "some optimizer.warmup_epochs, or train.skip_nonfinite"
            )
        values = {name: float(x[finite].mean()) for name, x in found.items()}
        if config.skip_nonfinite:
            values["skipped"] = int((~finite).sum())
        return values | {"clips_per_second": indices.size / elapsed}

    def fit_closed_form(self, fit: Fit) -> None:
        """A fit without epochs; it counts as the last epoch."""
        epoch, start = self.config.train.epochs, time.perf_counter()
        state = step.unreplicate(self.state)
        fitted = fit(_variables(state), self.predict, self.dataset)
        self.state = step.replicate(state.replace(**fitted))
        self.save(epoch, self.validate(), time.perf_counter() - start)

    def validate(self) -> dict[str, float]:
        """Scores on the validation split, if there is one."""
        if self.validation is None:
            return {}
        found = evaluate.predict(self.predict, _variables(self.state), self.validation)
        scores = evaluate.scores(found, self.events, threshold=self.config.data.event_threshold)
        return {f"validation_{name}": x for name, x in scores.items() if x is not None}

    def save(self, epoch: int, values: dict, seconds: float) -> None:
        """Writes an epoch's metrics, and its state as latest and, by validation, as best."""
        if self.writer:  # before the checkpoint: a resumed run drops the lines of unsaved epochs
            self.writer.write(epoch, values)
        progress = self.progress
        progress.epoch = epoch
        progress.seconds += seconds
        progress.skipped += int(values.get("skipped", 0))
        accuracy = values.get("validation_class_mean_accuracy", -1.0)  # absent: not validated
        # On a tie the later epoch wins: it has trained longer, at a lower learning rate.
        least = max(progress.best_accuracy, 0.0)
        better = self.selects and epoch >= self.config.train.select_from and accuracy >= least
        state = step.unreplicate(self.state)
        if hosts.any_process(better):
            progress.best_epoch, progress.best_accuracy = epoch, accuracy
            self.checkpoints.save("best", state, progress)
        self.checkpoints.save("latest", state, progress)

    def finish(self, corpus: Corpus, extra_seconds: float) -> dict:
        """Tests the best state, or the last one; writes bundle and results."""
        config, dataset = self.config, self.dataset
        best = self.checkpoints.restore("best", self.template) if self.selects else None
        # The last state also if the user moved a damaged best one away.
        saved = best or self.checkpoints.restore("latest", self.template)
        assert saved is not None  # the last epoch was saved
        state, tested = saved
        variables = _variables(state)
        temperature, calibration, calibrated = 1.0, "", None
        if self.validation is not None:
            found = evaluate.predict(self.predict, step.replicate(variables), self.validation)
            temperature = metrics.fit_temperature(found.scene_logits, found.scene)
            calibration = f"{len(found.scene)} validation clips" if temperature != 1.0 else ""
            calibrated = metrics.calibration_errors(found.scene_logits, found.scene, temperature)
        bundle = bundles.Bundle(
            model=config.model,
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
            calibration=calibration,
            known=self.fit_known(variables),
        )
        if hosts.is_main_process():
            bundle.save(self.workdir / "bundle")
        results = {
            "test": None,
            "epoch": tested.epoch,
            "validation_class_mean_accuracy": tested.best_accuracy if best else None,
            "temperature": temperature,
            "calibration": calibration,
            "max_distance": bundle.known.limit() if bundle.known else None,
            "validation_calibration": calibrated,
            "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
            "gmac_per_clip": macs.count(bundle.build(), variables, self.shape) / 1e9,
            "source": self.progress.source,
            "clips": dataset.sizes,
            "skipped_updates": self.progress.skipped,
            "training_seconds": self.progress.seconds + extra_seconds,
            "devices": [device.device_kind for device in jax.devices()],
            "versions": workdirs.versions(),
        }
        if "test" in dataset.sizes:
            results["test"] = evaluate.test_bundle(
                bundle,
                dataset,
                corpus,
                threshold=config.data.event_threshold,
                directory=self.workdir,
            )
        if hosts.is_main_process():
            workdirs.write_json(self.workdir / "results.json", results)
        return results

    def fit_known(self, variables: dict) -> known.Known | None:
        """The detector of unknown sounds; None without enough validation clips."""
        if not (self.validation and self.selects):
            return None
        run, variables = step.make_predict(self.model, features=True), step.replicate(variables)
        splits = (self.split, self.validation)
        try:
            found: Any = [evaluate.predict(run, variables, split).embedding for split in splits]
        except InputError:  # features of a clip that train.skip_nonfinite skipped
            return None
        return known.fit(*found)

    def close(self) -> None:
        if self.writer:
            self.writer.close()
        self.checkpoints.close()


def _variables(state: step.TrainState) -> dict:
    return {"params": state.params, "batch_stats": state.batch_stats}
