"""Pseudo-labels: a teacher's probability of each event in each recording of a manifest (§3.1).

Shapes: N recordings, B clips of a batch, L samples of a clip, E events.
"""

import csv
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from ergl_jax import progress
from ergl_jax.audio import log_mel, read_audio, segments
from ergl_jax.audio.levels import is_silent, note_silence
from ergl_jax.bundle import Bundle
from ergl_jax.datasets.manifest import Recording, read_recordings
from ergl_jax.datasets.notes import Notes
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, local_path, make_directory, writing
from ergl_jax.kernels.devices import split_batch


def label(
    bundle: Bundle,
    manifest: Path,
    out: Path,
    *,
    clip_seconds: float,
    pad: str,
    long: str,
    batch_size: int,
    strict: bool = False,
) -> list[tuple[str, str]]:
    """Writes an events file for `read_manifest`; returns the recordings left out, with reasons.

    Until all labels are computed they are in `<out>.<hash>.partial`: after an interruption the same
    call resumes, and repeats only recordings that have changed. Recordings that can't be decoded
    are left out and listed in `<out's stem>.failures.csv`; the next call tries only those again,
    and a manifest for training must not list them. Notes on what is unusual in the others are in
    `<out's stem>.notes.csv`.

    Args:
      bundle: the teacher.
      manifest: a CSV with the columns file and scene.
      out: an .npz with `clip` (N,), `events` (E,) and `probabilities` (N, E) float32.
      clip_seconds: length of a clip.
      pad: "zero" or "repeat", how a shorter recording is filled.
      long: "crop" labels the centre of a longer recording; "windows" all of it, by the mean over
        its clips.
      batch_size: clips at a time, rounded up to a multiple of the local devices.
      strict: raise at the first recording that can't be decoded.

    Raises:
      InputError: a wrong argument, outputs that are not finite, a full disk, no recording that can
        be decoded, or under `strict` any that can't.
    """
    segments.check(bundle.front_end, clip_seconds, pad, long)
    if not bundle.events:
        raise InputError("the bundle names no events: take a ported PANN (port_panns.py)")
    recordings = read_recordings(manifest)
    names = [recording.name for recording in recordings]
    out = local_path(out)
    if out.suffix != ".npz" or out.is_dir():
        raise InputError(f"{out}: name a file that ends in .npz")
    make_directory(out.absolute().parent, "directory")
    recipe = _recipe(bundle, names, clip_seconds, pad, long)
    partial = _Partial(out, recipe, recordings, len(bundle.events))
    todo = partial.missing()
    failures, noted = [], Notes()
    noted.rows = partial.notes(set(names) - {names[index] for index in todo})

    def decode(index: int) -> tuple[list[np.ndarray], list[str]]:
        """A recording's clips (L,), and notes on it."""
        rate, channel = bundle.front_end.sample_rate, bundle.front_end.channel
        notes: list[str] = []
        waveform = read_audio(recordings[index].path, rate, channel, notes)
        length = bundle.front_end.num_samples(clip_seconds)
        cut = [clip for _, clip in segments.segment(waveform, length, pad=pad, long=long)]
        return cut, notes + note_silence([is_silent(clip) for clip in cut])

    def clips() -> Iterator[tuple[int, int, np.ndarray]]:
        """Yields each clip to label: its recording, how many clips that one has, waveform (L,)."""
        for index, future in segments.prefetch(decode, todo):
            try:
                waveforms, notes = future.result()
            except InputError as error:
                if strict:
                    raise
                failures.append((names[index], str(error)))
                progress.say(f"left out: {error}")
                bar.update()
                continue
            partial.note(names[index], notes)
            noted.add(names[index], notes)
            for waveform in waveforms:
                yield index, len(waveforms), waveform

    initial = len(recordings) - len(todo)
    settings = {"total": len(recordings), "initial": initial, "unit": " clips"}
    with progress.bar(desc="labels", **settings) as bar:
        sums: dict[int, tuple[np.ndarray | float, int]] = {}  # recording -> sum (E,), clips so far
        for index, count, row in _tag(bundle, batch_size, clips()):
            total, seen = sums.pop(index, (0.0, 0))
            if seen + 1 < count:
                sums[index] = total + row, seen + 1
            else:
                partial.write(index, (total + row) / count)
                bar.update()
    done = np.delete(np.arange(len(recordings)), partial.missing())
    if len(done):
        clip, events = np.array(names)[done], np.array(bundle.events)
        with atomic_write(out) as tmp, open(tmp, "wb") as file:
            np.savez(file, clip=clip, events=events, probabilities=partial.probabilities[done])
        path = failures_file(out)
        path.unlink(missing_ok=True)
        if failures:
            with open(path, "w", newline="", encoding="utf-8") as listing:
                csv.writer(listing).writerows([("name", "reason"), *failures])
        noted.write(out.with_name(f"{out.stem}.notes.csv"))
    if not failures or not len(done):
        partial.delete()
    if not len(done):
        raise InputError(f"{manifest}: no clip can be decoded, the last because {failures[-1][1]}")
    return failures


def _tag(
    bundle: Bundle, batch_size: int, clips: Iterator[tuple[int, int, np.ndarray]]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields each clip with its probabilities (E,) in place of its waveform (L,).

    The next batch is decoded while the devices compute one.
    """
    devices = jax.local_device_count()
    batch_size = -(-batch_size // devices) * devices
    model = bundle.build()

    def probabilities(variables, waveforms):
        output: Any = model.apply(variables, log_mel(waveforms, bundle.front_end), train=False)
        return nn.sigmoid(output.event_logits)

    run = split_batch(probabilities, dict(bundle.variables))
    running: list[tuple[list, jax.Array]] = []
    while (batch := list(itertools.islice(clips, batch_size))) or running:
        if batch:
            waveforms = np.zeros((batch_size, len(batch[0][2])), np.float32)  # (B, L)
            for i, (_, _, waveform) in enumerate(batch):
                waveforms[i] = waveform
            running.append((batch, run(waveforms)))
        if len(running) > 1 or not batch:
            finished, computed = running.pop(0)
            rows = np.asarray(computed)[: len(finished)]
            if not np.isfinite(rows).all():
                raise InputError("the bundle's outputs are not finite: its weights are damaged")
            for (index, count, _), row in zip(finished, rows, strict=True):
                yield index, count, row


class _Partial:
    """Probabilities computed so far: a memory-mapped file, with the state of each recording.

    A row is still to be computed if it is NaN, or if its recording has changed since. Notes on the
    recordings are in a second file, CSV.
    """

    def __init__(self, out: Path, recipe: str, recordings: list[Recording], num_events: int):
        # Named by the recipe: other settings leave it alone, and returning to these resumes it.
        self._path = out.with_name(f"{out.name}.{recipe[:12]}.partial")
        self._notes = self._path.with_name(f"{self._path.name}.notes")
        self._states = np.array([recording.state or [-1, -1] for recording in recordings])  # (N, 2)
        try:
            rows = np.lib.format.open_memmap(self._path, "r+")
        except (OSError, ValueError):  # none, or damaged
            fields = [("state", np.int64, (2,)), ("probabilities", np.float32, (num_events,))]
            empty = np.zeros(len(recordings), fields)
            empty["probabilities"] = np.nan
            # Written before it is mapped: a full disk raises an error here, but crashes a mapping.
            with atomic_write(self._path) as tmp, open(tmp, "wb") as file:
                np.save(file, empty)
            rows = np.lib.format.open_memmap(self._path, "r+")
        self._done, self.probabilities = rows["state"], rows["probabilities"]  # (N, 2), (N, E)

    def missing(self) -> np.ndarray:
        """Indices of the rows that are still to be computed."""
        changed = (self._done != self._states).any(axis=1)
        return np.flatnonzero(changed | ~np.isfinite(self.probabilities).all(axis=1))

    def write(self, index: int, row: np.ndarray) -> None:
        self.probabilities[index] = row
        self._done[index] = self._states[index]  # last, for when it is killed in between

    def notes(self, names: set[str]) -> list[tuple[str, str]]:
        """The names and notes of these recordings; forgets those of others."""
        if not self._notes.exists():
            return []
        # The last row may be cut short, by a kill; its recording's labels are still to be computed.
        with open(self._notes, newline="", encoding="utf-8", errors="replace") as file:
            pairs = [(row[0], row[1]) for row in csv.reader(file) if len(row) == 2]
        rows = [(name, note) for name, note in pairs if name in names]
        with atomic_write(self._notes) as tmp, open(tmp, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return rows

    def note(self, name: str, notes: list[str]) -> None:
        """Keeps notes on a recording.

        Call it before `write`, so that a kill in between loses none.
        """
        if notes:
            with writing(self._notes), open(self._notes, "a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows((name, note) for note in notes)

    def delete(self) -> None:
        del self._done, self.probabilities
        self._path.unlink()
        self._notes.unlink(missing_ok=True)


def failures_file(out: Path) -> Path:
    """Where `label` lists the recordings left out of `out`."""
    return out.with_name(f"{out.stem}.failures.csv")


def _recipe(bundle: Bundle, names: list[str], clip_seconds: float, pad: str, long: str) -> str:
    """A hash of everything that determines the labels, except the recordings' contents."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(bundle.variables)):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    model, front_end = bundle.model.to_dict(), bundle.front_end.numbers()
    recipe = [model, bundle.events, front_end, clip_seconds, pad, long, names]
    digest.update(json.dumps(recipe).encode())
    return digest.hexdigest()
