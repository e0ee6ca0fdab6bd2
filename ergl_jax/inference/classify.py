"""A trained model and its recordings: their scenes and events, explanations, embeddings.

Shapes: L samples, B windows of a batch, n events, N recordings, D of an embedding.
"""

import functools
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax import audio
from ergl_jax import bundle as bundles
from ergl_jax.bundle import Bundle
from ergl_jax.errors import InputError
from ergl_jax.inference.embedding import embedding, output_and_features
from ergl_jax.inference.results import Classification, Tags, Window, ranked
from ergl_jax.inference.windows import Pending, in_batches, listed, results_of, run_windows
from ergl_jax.known import KEEP

if TYPE_CHECKING:
    from ergl_jax.inference.explain import Explainer
    from ergl_jax.inference.explanation import Explanation
    from ergl_jax.inference.tagging import Tagger


def load(directory: str | os.PathLike | None = None, *, keep: float = KEEP) -> "Model":
    """The model in the directory of a bundle or a run, at hf://OWNER/NAME or
    hf://OWNER/NAME@REVISION on the Hugging Face Hub, or of a name that `ergl models` lists.

    A bundle or run in the current directory comes before a model of the same name. None: the model
    that the environment variable ERGL_MODEL names, else "esc10", with a note that lists its
    scenes.

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
        return results_of(self.classify_each, recordings, sample_rate, channel)

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

        def predict(waveforms: np.ndarray) -> tuple[np.ndarray, ...]:
            logits, events, features = in_batches(self._run, self.variables, waveforms)
            known = self.bundle.known
            distances = known.distance(features) if known else np.zeros(len(logits))
            return _softmax(logits), events, distances

        for pending in run_windows(recordings, sample_rate, channel, self.bundle, predict):
            yield pending.recording, pending.error or _classification(pending, self)

    def check_scenes(self) -> None:
        """InputError for a model without scenes."""
        if not self.scenes:
            raise InputError(
                "the bundle has no scenes, only events (a PANN): tag recordings with it (ergl tag, "
                "Model.tag), or classify them with the bundle of a trained run, <workdir>/bundle"
            )

    def tag(
        self,
        recordings: str | os.PathLike | np.ndarray | list,
        *,
        sample_rate: float | None = None,
        channel: str | None = None,
    ) -> Tags | list[Tags]:
        """Tags a recording, or each recording of a list or a folder: its events.

        An event's probability is the mean over windows of the bundle's clip length; `Tags.maxima`
        has the highest of any window, and `Tags.activity` the events over time.

        Args:
          recordings: as in `classify`, with the same errors.
          sample_rate: of samples, in Hz.
          channel: as in `classify`.

        Raises:
          InputError: as in `classify`, or the model predicts no events.
        """
        return results_of(self.tag_each, recordings, sample_rate, channel)

    def tag_each(
        self,
        recordings: str | os.PathLike | Iterable,
        *,
        sample_rate: float | None = None,
        channel: str | None = None,
    ) -> Iterator[tuple[Any, Tags | InputError]]:
        """Yields each of `recordings` with its Tags, or with the error raised for it.

        As `classify_each`.
        """
        return self.tagger(recordings, sample_rate, channel)

    @functools.cached_property
    def tagger(self) -> "Tagger":
        """Tags recordings; InputError for a model that predicts no events."""
        from ergl_jax.inference.tagging import Tagger  # not above: it imports this file

        return Tagger(self)

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
          InputError: as in `classify`, or the model has no graph: only ERGL and the dynamic
            event graph have one.
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
        each, several = listed(recordings)
        vectors = []
        run = functools.partial(in_batches, self._embed, self.variables)
        for pending in run_windows(each, sample_rate, channel, self.bundle, run):
            if pending.error:
                raise pending.error
            for note in pending.notes:
                warnings.warn(f"{pending.name or 'samples'}: {note}", stacklevel=2)
            vectors.append(pending.mean([vector for _, vector in pending.outputs]))
        return np.array(vectors) if several else vectors[0]

    def outputs(self, waveforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the model on windows (B, L), B >= 1, at the bundle's sample rate and clip length.

        Returns:
          Scene logits (B, scenes) divided by the bundle's temperature, and event probabilities
          (B, n), n = 0 for a model without events.
        """
        logits, events, _ = in_batches(self._run, self.variables, waveforms)
        return logits, events


def _classification(pending: Pending, model: Model) -> Classification:
    bundle = model.bundle
    _, scenes, events, distances = zip(*pending.outputs, strict=True)
    seconds = pending.length / bundle.front_end.sample_rate

    def predicted(scenes: np.ndarray, events: np.ndarray) -> dict[str, Any]:
        return {"scenes": ranked(bundle.scenes, scenes), "events": ranked(bundle.events, events)}

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
        notes=(*pending.notes, *pending.filled(bundle)),
        distance=None if model.max_distance is None else float(pending.mean(distances)),
        max_distance=model.max_distance,
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    """SciPy's of the last axis, without its import of half a second."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
