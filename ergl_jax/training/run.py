"""One training run: its data, compiled steps and state, from the first epoch to the bundle."""

import dataclasses
import json
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from ergl_jax import registry
from ergl_jax.bundle import Bundle
from ergl_jax.datasets import batches
from ergl_jax.datasets.builder import SceneDataset
from ergl_jax.datasets.events import choose_events
from ergl_jax.errors import InputError, Stopped, postponed_sigterm
from ergl_jax.files import make_directory
from ergl_jax.recipes import closed_form, stages
from ergl_jax.training import (
    device_data,
    evaluate,
    hosts,
    losses,
    macs,
    metric_writer,
    metrics,
    optimizer,
    transfer,
    workdirs,
)
from ergl_jax.training.augmentation import make_augment
from ergl_jax.training.checkpoints import Checkpoints, Progress
from ergl_jax.training.step import (
    AXIS,
    Trainer,
    TrainState,
    init_state,
    make_predict,
    replicate,
    stack,
    unreplicate,
)


class _Labels(NamedTuple):
    """What a run that learns events needs to know of them."""

    chosen: np.ndarray  # (n,), columns of the dataset's events
    relations: losses.Relations


class Run:
    """One training run: its data, compiled steps and state."""

    def __init__(self, config, dataset: SceneDataset, workdir: Path):
        self.config, self.dataset, self.workdir = config, dataset, workdir
        self.split = dataset.split("train")
        self.validation = "validation" in dataset.sizes
        # A model that learns events alone has no accuracy to be chosen by: its last epoch counts.
        self.chooses = self.validation and config.train.loss != "events"
        system = registry.system(config.model.name)
        labels = self._labels() if system.events else None
        self.events = np.zeros(0, int) if labels is None else labels.chosen
        first = batches.train_indices(len(self.split), config.train.batch_size, seed=0, epoch=0)
        length = {"steps_per_epoch": len(first), "epochs": config.train.epochs}
        frozen = system.pretrained if config.model.frozen else ()
        optimiser = optimizer.adamw(config.optimizer, **length, frozen=frozen)
        self.rate = optimizer.learning_rate(config.optimizer, **length)
        sizes = {"num_scenes": len(dataset.scenes), "num_events": len(self.events)}
        model = registry.build(config.model, **sizes, axis_name=AXIS)
        self.trainer = Trainer(
            model,
            optimiser,
            make_augment(config.augment),
            loss=losses.make_loss(config.train.loss, labels and labels.relations),
            num_scenes=len(dataset.scenes),
            seed=config.seed,
            skip_nonfinite=config.train.skip_nonfinite,
        )
        self.predict = make_predict(model)
        self.shape = self.split[0]["log_mel"].shape
        state = init_state(model, optimiser, seed=config.seed, shape=self.shape)
        self.parameters = sum(x.size for x in jax.tree.leaves(state.params))
        self.like = jax.device_get(state)
        self.progress, directory = Progress(), workdir / "checkpoints"
        # Asked together: a slower process would see what a faster one has made below.
        there = hosts.any_process(directory.is_dir())
        self.checkpoints = Checkpoints(directory) if there else None
        if self.checkpoints and (restored := self.checkpoints.restore("latest", self.like)):
            state, self.progress = restored
            print(f"Going on after epoch {self.progress.epoch} of {workdir}", flush=True)
        elif self._had_a_checkpoint():
            raise InputError(
                f"{workdir} tells of training, and {directory} has no checkpoint to go on from: "
                "put it back, or start anew beside this run with --fresh"
            )
        else:
            state = self._begin(state)
        # Here, where data and settings have proved good: a mistake takes no directory.
        self.writer = None
        if hosts.is_main_process():
            make_directory(workdir, "workdir")
            workdirs.write_json(workdir / "config.json", json.loads(config.to_json()))
            self.writer = metric_writer.MetricWriter(workdir, done=self.progress.epoch)
        hosts.check_shared(workdir / "config.json")
        self.checkpoints = self.checkpoints or Checkpoints(directory)
        self.state = replicate(state)

    def _had_a_checkpoint(self) -> bool:
        """Whether the work directory tells of epochs that were once saved."""
        if self.config.train.fit != "steps":  # what is found at once is found again
            return False
        # An epoch was saved before the next one's line, and the last before the results.
        done = (self.workdir / "results.json").exists()
        return done or metric_writer.last_epoch(self.workdir) > 1

    def _labels(self) -> "_Labels":
        """Of the training split: which events were chosen, and how they go with scenes."""
        data, rows = self.config.data, (self.split[i] for i in range(len(self.split)))
        scene, events = zip(*((row["scene"], row["events"]) for row in rows), strict=True)
        scene, events = np.stack(scene), np.stack(events)
        chosen = choose_events(
            self.dataset.events, events, ranking=data.events, count=data.num_events
        )
        relations = losses.relations(
            scene, events[:, chosen], len(self.dataset.scenes), data.event_threshold
        )
        return _Labels(chosen, relations)

    def _begin(self, state: TrainState) -> TrainState:
        """The state before the first step, with what it takes from elsewhere."""
        config = self.config
        if "standardise" in state.batch_stats:
            mean, deviation = device_data.band_statistics(self.split)
            standardise = {"mean": mean, "deviation": deviation}
            state = state.replace(batch_stats=state.batch_stats | {"standardise": standardise})
        if config.model.init_from:
            state, source = transfer.start_pretrained(state, config.model, self.dataset.front_end)
            self.progress = Progress(source=source)
        return stages.start(state, config, self.workdir)

    def fit(self) -> None:
        """All that is still to do."""
        if self.progress.epoch >= self.config.train.epochs:
            return
        if self.config.train.fit == "steps":
            self._fit_in_steps()
        else:
            self._fit_at_once()

    def _fit_at_once(self) -> None:
        """What takes no epochs counts as the last."""
        epoch = self.config.train.epochs
        start = time.perf_counter()
        state = unreplicate(self.state)
        variables = closed_form.fit(
            self.config.train.fit,
            {"params": state.params, "batch_stats": state.batch_stats},
            self.predict,
            self.dataset,
        )
        self.state = replicate(state.replace(**variables))
        values = self._validate()
        if self.writer:
            self.writer.write(epoch, values)
        self._save(epoch, values, time.perf_counter() - start)

    def _fit_in_steps(self) -> None:
        config = self.config.train
        resident = device_data.is_resident(self.config.data.resident, self.split)
        data = replicate(device_data.load(self.split, self.events)) if resident else None
        bar = tqdm(
            range(self.progress.epoch + 1, config.epochs + 1),
            initial=self.progress.epoch,
            total=config.epochs,
            desc="epochs",
            unit="epoch",
            disable=not hosts.is_main_process(),
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
                if hosts.any_process(bool(sigterm)):
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
            for number, batch in enumerate(
                device_data.local_batches(self.split, self.events, indices)
            ):
                self.state, values = self.trainer.step(self.state, batch)
                each.append(values)
                bar.set_postfix_str(f"step {number + 1}/{len(indices)}")
            metrics = stack(each)
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
            self.predict, variables, self.dataset.split("validation"), evaluate.batch_size()
        )

    def _calibrate(self, variables: dict) -> tuple[float, dict | None]:
        """The temperature by validation, 1 without it, and what it changes there."""
        if not self.validation:
            return 1.0, None
        found = self._predict_validation(replicate(variables))
        temperature = metrics.fit_temperature(found.scene_logits, found.scene)
        return temperature, metrics.calibration_errors(found.scene_logits, found.scene, temperature)

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
        better = (
            self.chooses
            and accuracy is not None
            and epoch >= self.config.train.select_from
            and accuracy >= self.progress.best_accuracy
        )
        better = hosts.any_process(better)
        if better:
            self.progress = dataclasses.replace(
                self.progress, best_epoch=epoch, best_accuracy=accuracy
            )
        state = unreplicate(self.state)
        if better:
            self.checkpoints.save("best", state, self.progress)
        self.checkpoints.save("latest", state, self.progress)

    def finish(self) -> dict:
        """Tests the best state (the last one without validation) and writes bundle and results."""
        config, dataset = self.config, self.dataset
        best = self.checkpoints.restore("best", self.like) if self.chooses else None
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
        if hosts.is_main_process():
            bundle.save(self.workdir / "bundle")
        results = {
            "test": None,
            "epoch": progress.epoch,
            "validation_class_mean_accuracy": progress.best_accuracy if best else None,
            "temperature": temperature,
            "validation_calibration": calibrated,
            "parameters": self.parameters,
            "gmac_per_clip": macs.count(bundle.build(), variables, self.shape) / 1e9,
            "source": self.progress.source,
            "clips": dataset.sizes,
            "skipped_updates": self.progress.skipped,
            "training_seconds": self.progress.seconds + stages.seconds(config, self.workdir),
            "devices": [device.device_kind for device in jax.devices()],
            "versions": workdirs.versions(),
        }
        if "test" in dataset.sizes:
            results["test"] = evaluate.test_bundle(
                bundle, dataset, threshold=config.data.event_threshold, directory=self.workdir
            )
        if hosts.is_main_process():
            workdirs.write_json(self.workdir / "results.json", results)
        return results

    def close(self) -> None:
        if self.writer:
            self.writer.close()
        self.checkpoints.close()


def _line(values: dict[str, float]) -> str:
    """An epoch in a progress line."""
    parts = [f"loss {values['loss']:.3f}"]
    parts += [f"scene {values['scene_loss']:.3f}", f"event {values['event_loss']:.4f}"]
    parts += [f"train {100 * values['accuracy']:.1f} %"]
    if "validation_class_mean_accuracy" in values:
        parts += [f"validation {100 * values['validation_class_mean_accuracy']:.1f} %"]
    return ", ".join([*parts, f"{values['clips_per_second']:.0f} clips/s"])
