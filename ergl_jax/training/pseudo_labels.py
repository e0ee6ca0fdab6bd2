"""Pseudo-labels: a teacher's probability of each event in each recording of a manifest (§3.1).

Shapes: N recordings, B pieces of a batch, L samples of a piece, E events.
"""

import csv
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from ergl_jax.audio import read_audio, segments
from ergl_jax.bundle import Bundle
from ergl_jax.datasets.manifest import Recording, read_recordings
from ergl_jax.errors import InputError
from ergl_jax.files import atomic_write, local_path, make_directory
from ergl_jax.inference.tagger import Tagger


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
    """Writes what `read_manifest` takes as an events file; returns the failures.

    What is done lies in `<out>.<hash>.partial` until all is: stopped at any time, the same call
    goes on from there, and does again only the recordings that have changed meanwhile. Those that
    can't be decoded are left out of `out` and listed, with the reason, in
    `<out's stem>.failures.csv`; the next call tries them alone, and a manifest that is to be
    trained on must lose their rows.

    Args:
      bundle: the teacher.
      manifest: a CSV of which the columns file and scene are read.
      out: an .npz with `clip` (N,), `events` (E,) and `probabilities` (N, E) float32.
      clip_seconds: length of a piece.
      pad: "zero" or "repeat", what fills a shorter recording.
      long: "crop" labels the centre of a longer recording; "windows" all of it, by the mean over
        its pieces.
      batch_size: pieces at a time, rounded up to a multiple of the local devices.
      strict: raise at the first recording that can't be decoded.

    Raises:
      InputError: a wrong argument, outputs that are not finite, a full disk, no recording at all
        that can be decoded, or any that can't be under `strict`.
    """
    segments.check(bundle.front_end, clip_seconds, pad, long)
    recordings = read_recordings(manifest)
    names = [recording.name for recording in recordings]
    tagger = Tagger(bundle, batch_size)
    out = local_path(out)
    if out.suffix != ".npz" or out.is_dir():
        raise InputError(f"{out}: name a file that ends in .npz")
    make_directory(out.absolute().parent, "directory")
    recipe = _recipe(bundle, names, clip_seconds, pad, long)
    partial = _Partial(out, recipe, recordings, len(bundle.events))
    failures = []

    def waveforms(index: int) -> list[np.ndarray]:
        """A recording's pieces (L,)."""
        front_end = bundle.front_end
        waveform = read_audio(recordings[index].path, front_end.sample_rate, front_end.channel)
        length = front_end.num_samples(clip_seconds)
        return [clip for _, clip in segments.segment(waveform, length, pad=pad, long=long)]

    def decoded() -> Iterator[tuple[int, int, np.ndarray]]:
        """Each piece that is to be labelled: its recording, that one's pieces, waveform (L,)."""
        for index, future in segments.prefetch(waveforms, partial.missing()):
            try:
                found = future.result()
            except InputError as error:
                if strict:
                    raise
                failures.append((names[index], str(error)))
                tqdm.write(f"left out: {error}", file=sys.stderr)
                bar.update()
                continue
            for waveform in found:
                yield index, len(found), waveform

    missing = len(partial.missing())
    with tqdm(total=len(recordings), initial=len(recordings) - missing, unit=" clips") as bar:
        means = _Means()
        for owners, probabilities in _tagged(tagger, decoded()):
            for index, mean in means.add(owners, probabilities):
                partial.write(index, mean)
                bar.update()
    done = np.delete(np.arange(len(recordings)), partial.missing())
    if len(done):
        clips, events = np.array(names)[done], np.array(bundle.events)
        with atomic_write(out) as beside, open(beside, "wb") as file:
            np.savez(file, clip=clips, events=events, probabilities=partial.probabilities[done])
        _write_failures(failures_file(out), failures)
    if not failures or not len(done):
        partial.delete()
    if not len(done):
        raise InputError(f"{manifest}: no clip can be decoded, the last because {failures[-1][1]}")
    return failures


def _tagged(tagger: Tagger, source: Iterator) -> Iterator[tuple[list, np.ndarray]]:
    """Yields [(recording, its pieces)] and probabilities (B, E) of pieces, a batch at a time.

    The next batch is gathered while the devices work on one.
    """
    running = None
    while batch := list(itertools.islice(source, tagger.batch_size)):
        rows = np.zeros((tagger.batch_size, len(batch[0][2])), np.float32)  # (B, L)
        for row, (_, _, waveform) in zip(rows, batch, strict=False):
            row[:] = waveform
        started = [(index, count) for index, count, _ in batch], tagger(rows)
        if running:
            yield _finished(*running)
        running = started
    if running:
        yield _finished(*running)


def _finished(owners: list, probabilities: jax.Array) -> tuple[list, np.ndarray]:
    found = np.asarray(probabilities)[: len(owners)]
    if not np.isfinite(found).all():
        raise InputError("the bundle's outputs are not finite: its weights are damaged")
    return owners, found


class _Means:
    """Means over the pieces of each recording, in however many batches they come."""

    def __init__(self):
        self._sums = {}  # recording: (sum (E,), pieces so far)

    def add(self, owners: list[tuple[int, int]], rows: np.ndarray) -> Iterator:
        """Yields (recording, mean) of those of which all pieces have come."""
        for (index, count), row in zip(owners, rows, strict=True):
            total, seen = self._sums.pop(index, (0.0, 0))
            if seen + 1 == count:
                yield index, (total + row) / count
            else:
                self._sums[index] = total + row, seen + 1


class _Partial:
    """Rows of probabilities in a file that is mapped to memory, each with its recording's state.

    A row is still to do where it holds NaN, or where its recording has changed since.
    """

    def __init__(self, out: Path, recipe: str, recordings: list[Recording], num_events: int):
        # By the recipe's name: other settings leave it alone, and going back to these finds it.
        self._path = out.with_name(f"{out.name}.{recipe[:12]}.partial")
        self._states = np.array([recording.state or [-1, -1] for recording in recordings])  # (N, 2)
        try:
            rows = np.lib.format.open_memmap(self._path, "r+")
        except (OSError, ValueError):  # none, or damaged
            fields = [("state", np.int64, (2,)), ("probabilities", np.float32, (num_events,))]
            rows = np.zeros(len(recordings), fields)
            rows["probabilities"] = np.nan
            # Written, not mapped: on a full disk that is an error, and a new mapping a crash.
            with atomic_write(self._path) as beside, open(beside, "wb") as file:
                np.save(file, rows)
            rows = np.lib.format.open_memmap(self._path, "r+")
        self._done, self.probabilities = rows["state"], rows["probabilities"]  # (N, 2), (N, E)

    def missing(self) -> np.ndarray:
        """Indices of the rows that are not there, not whole or no longer right."""
        changed = (self._done != self._states).any(axis=1)
        return np.flatnonzero(changed | ~np.isfinite(self.probabilities).all(axis=1))

    def write(self, index: int, row: np.ndarray) -> None:
        self.probabilities[index] = row
        self._done[index] = self._states[index]  # last: killed before, the row is still to do

    def delete(self) -> None:
        del self._done, self.probabilities
        self._path.unlink()


def _write_failures(path: Path, failures: list[tuple[str, str]]) -> None:
    """None is no file."""
    path.unlink(missing_ok=True)
    if failures:
        with open(path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("name", "reason"), *failures])


def failures_file(out: Path) -> Path:
    """Where the recordings that `label` left out of `out` are listed."""
    return out.with_name(f"{out.stem}.failures.csv")


def _recipe(bundle: Bundle, names: list[str], clip_seconds, pad, long) -> str:
    """Hashes everything that decides the labels but the recordings' contents."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(bundle.variables)):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    recipe = [bundle.model.to_dict(), bundle.events, bundle.front_end.numbers()]
    recipe += [clip_seconds, pad, long, names]
    digest.update(json.dumps(recipe).encode())
    return digest.hexdigest()
