"""A trained model and its recordings: their scenes and events, explanations, embeddings.

Shapes: L samples, W windows of a recording, B windows of a batch, n events, N recordings, D of an
embedding.
"""

import collections
import functools
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax import audio
from ergl_jax import bundle as bundles
from ergl_jax.audio.levels import is_silent, note_silence
from ergl_jax.bundle import Bundle
from ergl_jax.errors import InputError
from ergl_jax.inference.embedding import embedding, output_and_features
from ergl_jax.inference.results import Classification, Window
from ergl_jax.inference.windows import Pending, windows
from ergl_jax.known import KEEP

if TYPE_CHECKING:
    from ergl_jax.inference.explain import Explainer, Explanation

BATCH_SIZE = 8


def load(directory: str | os.PathLike, *, keep: float = KEEP) -> "Model":
    """The model in the directory of a bundle or a run, or at hf://OWNER/NAME or
    hf://OWNER/NAME@REVISION on the Hugging Face Hub.

    `keep` as of `Model`. Raises InputError if it can't be used (`bundle.load`).
    """
    return Model(bundles.load(directory), keep=keep)


class Model:
    """A bundle's model, compiled at first use for windows of the bundle's clip length.

    Attributes:
      bundle: the Bundle.
      module: its Flax module.
      variables: the module's variables, on the device.
      scenes: names, in the order of the module's outputs; a PANN has none.
      events: the same.
      max_distance: beyond it a recording counts as unknown (`Known.limit`): chosen so that a share
        `keep` of recordings of known classes does not; None if the bundle has no detector.
    """

    def __init__(self, bundle: Bundle, *, keep: float = KEEP):
        self.bundle = bundle
        self.max_distance = bundle.known.limit(keep) if bundle.known else None
        self.scenes, self.events = bundle.scenes, bundle.events
        self.module = module = bundle.build()
        self.variables = jax.device_put(dict(bundle.variables))

        @jax.jit
        def run(variables, waveforms):
            log_mel = audio.log_mel(waveforms, bundle.front_end)
            output: Any
            features = none = jnp.zeros((len(waveforms), 0))
            if bundle.known:
                output, features = output_and_features(module, variables, log_mel)
            else:
                output = module.apply(variables, log_mel, train=False)
            events = none if output.event_logits is None else nn.sigmoid(output.event_logits)
            return output.scene_logits / bundle.temperature, events, features

        @jax.jit
        def embed(variables, waveforms):
            return (embedding(module, variables, audio.log_mel(waveforms, bundle.front_end)),)

        self._run, self._embed = run, embed

    def __repr__(self) -> str:
        bundle, front_end = self.bundle, self.bundle.front_end
        return (
            f"<Model {bundle.model.name}: {len(self.scenes)} scenes, {len(self.events)} events, "
            f"clips of {bundle.clip_seconds:g} s, front end {front_end.setting} "
            f"({front_end.sample_rate} Hz), trained on {bundle.dataset}, licence {bundle.licence}>"
        )

    def classify(
        self,
        recordings: str | os.PathLike | np.ndarray | list,
        *,
        sample_rate: float | None = None,
        channel: str | None = None,
    ) -> Classification | list[Classification]:
        """Classifies a recording, or each recording of a list or a folder.

        A recording of any length is cut into windows of the bundle's clip length; its
        probabilities are the mean over them.

        Args:
          recordings: a file; or samples (L,) or (L, channels), floating point, full scale 1; or a
            list of these; or a folder, all of whose audio files are taken (`audio.expand`).
          sample_rate: of samples, in Hz.
          channel: "left", "right" or "mix" (their mean); default: as the bundle's front end.

        Raises:
          InputError: a file can't be read or isn't audio, samples are not finite, or another
            `channel`; the model has no scenes.
          ValueError: samples of another type or shape, or without a sample rate.
        """
        each, several = _listed(recordings)
        results = []
        for _, result in self.classify_each(each, sample_rate=sample_rate, channel=channel):
            if isinstance(result, InputError):
                raise result
            results.append(result)
        return results if several else results[0]

    def classify_each(
        self,
        recordings: str | os.PathLike | Iterable,
        *,
        sample_rate: float | None = None,
        channel: str | None = None,
    ) -> Iterator[tuple[Any, Classification | InputError]]:
        """Yields each of `recordings` with its Classification, or with the error raised for it.

        In order, each as soon as it is ready. Windows of several recordings share a batch. A
        folder stands for its recordings, as in `classify`.
        """
        self.check_scenes()
        if isinstance(recordings, str | os.PathLike):
            recordings, _ = _listed(recordings)

        def predict(waveforms: np.ndarray) -> tuple[np.ndarray, ...]:
            logits, events, features = self._in_batches(self._run, waveforms)
            known = self.bundle.known
            distances = known.distance(features) if known else np.zeros(len(logits))
            return _softmax(logits), events, distances

        for pending in self._each(recordings, sample_rate, channel, predict):
            yield pending.recording, pending.error or _classification(pending, self)

    def check_scenes(self) -> None:
        """InputError for a model without scenes."""
        if not self.scenes:
            raise InputError(
                "the bundle has no scenes, only events (a PANN): it can embed recordings but not "
                "classify them; use the bundle of a trained run, <workdir>/bundle"
            )

    def explain(
        self,
        recording: str | os.PathLike | np.ndarray,
        *,
        sample_rate: float | None = None,
        channel: str | None = None,
        method: str = "gradient",
    ) -> "Explanation":
        """Explains the scene by the graph: which events and relations contribute to it.

        Of a recording longer than the bundle's clips, the window in which its scene is most
        probable.

        Args:
          recording: a file or samples, as in `classify`.
          sample_rate: of samples, in Hz.
          channel: as in `classify`.
          method: "gradient" (times input) or "integrated" gradients.

        Raises:
          InputError: as in `classify`, or the model has no graph: only an ERGL has one.
        """
        return self._explainer(recording, sample_rate=sample_rate, channel=channel, method=method)

    @functools.cached_property
    def _explainer(self) -> "Explainer":
        from ergl_jax.inference.explain import Explainer  # not above: it imports this file

        return Explainer(self)

    def embed(
        self,
        recordings: str | os.PathLike | np.ndarray | list,
        *,
        sample_rate: float | None = None,
        channel: str | None = None,
    ) -> np.ndarray:
        """Embeds recordings, for search and clustering.

        An embedding is what the model's scene layer reads, or a PANN's own (2048 numbers), as the
        mean over windows. What `classify` notes about a recording is a warning here.

        Args:
          recordings: as in `classify`, with the same errors.
          sample_rate: of samples, in Hz.
          channel: as in `classify`.

        Returns:
          (D,) float32 of a recording, (N, D) of a list or folder, in the order of `classify`.
        """
        each, several = _listed(recordings)
        vectors = []
        for pending in self._each(
            each, sample_rate, channel, lambda waveforms: self._in_batches(self._embed, waveforms)
        ):
            if pending.error:
                raise pending.error
            for note in pending.notes:
                warnings.warn(f"{pending.name or 'samples'}: {note}", stacklevel=2)
            vectors.append(pending.mean([vector for _, vector in pending.outputs]))
        return np.array(vectors) if several else vectors[0]

    def _each(
        self,
        recordings: Iterable,
        sample_rate: float | None,
        channel: str | None,
        run: Callable[[np.ndarray], tuple[np.ndarray, ...]],
    ) -> Iterator[Pending]:
        """Yields each recording with its error, or with what `run` returns for its windows."""
        queue: collections.deque[Pending] = collections.deque()
        each = windows(recordings, sample_rate, channel, self.bundle, queue)
        while True:
            if batch := list(itertools.islice(each, BATCH_SIZE)):
                found = run(np.stack([window for _, _, window in batch]))
                for (pending, start, window), *outputs in zip(batch, *found, strict=True):
                    pending.outputs.append((start, *outputs))
                    pending.silent.append(is_silent(window))
                    if not all(np.isfinite(x).all() for x in outputs):
                        pending.error = InputError(
                            "the bundle's outputs are not finite: its weights are damaged"
                        )
            while queue and queue[0].is_ready:
                pending = queue.popleft()
                pending.notes += note_silence(pending.silent, ", and left out")
                yield pending
            if not batch:
                return

    def outputs(self, waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the model on windows (B, L), B >= 1, at the bundle's sample rate and clip length.

        Returns:
          Scene logits (B, scenes) divided by the bundle's temperature, and event probabilities
          (B, n), n = 0 for a model without events.
        """
        logits, events, _ = self._in_batches(self._run, waveforms)
        return logits, events

    def _in_batches(self, program: Callable, waveforms: np.ndarray) -> tuple[np.ndarray, ...]:
        """The outputs of a program on windows (B, L), B >= 1, in batches of one of two sizes."""
        batches = [waveforms[i : i + BATCH_SIZE] for i in range(0, len(waveforms), BATCH_SIZE)]
        missing = BATCH_SIZE - len(batches[-1])
        if missing < BATCH_SIZE // 2:
            batches[-1] = np.pad(batches[-1], ((0, missing), (0, 0)))
        else:  # one at a time: most recordings are a single window
            batches[-1:] = [waveform[None] for waveform in batches[-1]]
        outputs = [jax.device_get(program(self.variables, batch)) for batch in batches]
        return tuple(np.concatenate(x)[: len(waveforms)] for x in zip(*outputs, strict=True))


def _listed(recordings: Any) -> tuple[list, bool]:
    """Recordings as a list, and whether they are several: a list or a folder's."""
    if isinstance(recordings, str | os.PathLike) and os.path.isdir(recordings):
        return audio.expand(recordings), True
    if isinstance(recordings, list | tuple):
        return list(recordings), True
    return [recordings], False


def _classification(pending: Pending, model: Model) -> Classification:
    bundle = model.bundle
    _, scenes, events, distances = zip(*pending.outputs, strict=True)
    seconds, notes = pending.length / bundle.front_end.sample_rate, pending.notes
    if pending.length < bundle.front_end.num_samples(bundle.clip_seconds):
        how = {"zero": "silence", "repeat": "itself again"}[bundle.pad]
        notes.append(f"{seconds:.3g} s are filled with {how} to {bundle.clip_seconds:g} s")

    def predicted(scenes: np.ndarray, events: np.ndarray) -> dict[str, Any]:
        return {"scenes": _ranked(bundle.scenes, scenes), "events": _ranked(bundle.events, events)}

    return Classification(
        start=0.0,
        stop=seconds,
        **predicted(pending.mean(scenes), pending.mean(events)),
        name=pending.name,
        timeline=tuple(
            Window(
                start,
                min(start + bundle.clip_seconds, seconds),
                **predicted(scene, event),
                silent=silent,
            )
            for (start, scene, event, _), silent in zip(
                pending.outputs, pending.silent, strict=True
            )
        ),
        notes=tuple(notes),
        distance=None if model.max_distance is None else float(pending.mean(distances)),
        max_distance=model.max_distance,
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    """SciPy's of the last axis, without its import of half a second."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _ranked(names: tuple[str, ...], probabilities: np.ndarray) -> dict[str, float]:
    return {names[i]: float(probabilities[i]) for i in np.argsort(-probabilities, kind="stable")}
