"""Waveforms to features (section 3.1): one jitted, batched function, `log_mel`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax.audio import mel, scattering
from ergl_jax.audio.front_end import FrontEnd

MIN_POWER = 1e-10  # under the logarithm in dB: silence is -100


@functools.partial(jax.jit, static_argnames="front_end")
def log_mel(waveform: jax.Array, front_end: FrontEnd) -> jax.Array:
    """The log-mel spectrograms of mono waveforms, or their scattering coefficients.

    Compiles for each new shape. Does not work under jax.vmap, nor on a batch that is sharded
    automatically; jax.shard_map works.

    Args:
      waveform: (B, L) floating point at the front end's sample rate, full scale 1.
      front_end: one of FRONT_ENDS.

    Returns:
      (B, F, M) float32, F = front_end.num_frames(L / sample_rate), M = front_end.n_mels; in dB,
      or natural logarithms where the front end has an offset. With `front_end.waveform` M is
      n_mels + hop: each frame's samples follow its bands.

    Raises:
      ValueError: not a floating-point (B, L) with B >= 1, or L < front_end.min_samples.
    """
    batch, length = waveform.shape if waveform.ndim == 2 else (0, 0)
    floating = jnp.issubdtype(waveform.dtype, jnp.floating)
    if not batch or not floating or length < front_end.min_samples:
        raise ValueError(
            f"log_mel needs floating-point waveforms (batch >= 1, samples >= "
            f"{front_end.min_samples}) for {front_end.name}, not {waveform.dtype} {waveform.shape}"
        )
    waveform = waveform.astype(jnp.float32)
    if front_end.is_scattering:
        scale, hop, offset = front_end.n_fft, front_end.hop, front_end.offset
        return jnp.log(scattering.scattering(waveform, scale, hop, offset) + offset)
    if front_end.segment:
        waveform = _segments(waveform, front_end)  # (B S, segment)
    bands = mel.mel_bands(pad_ends(waveform, front_end), front_end)
    if front_end.frames == "centred_whole":
        bands = bands[:, :-1]
    bands = bands.reshape(batch, -1, front_end.n_mels)
    if front_end.offset:
        return jnp.log(bands + front_end.offset)
    decibels = 10.0 * jnp.log10(jnp.maximum(bands, MIN_POWER))
    if not front_end.waveform:
        return decibels
    missing = bands.shape[1] * front_end.hop - length  # after the last sample: 1 to hop
    samples = jnp.pad(waveform, ((0, 0), (0, missing))).reshape(batch, -1, front_end.hop)
    return jnp.concatenate([decibels, samples], axis=-1)


def pad_ends(waveform: jax.Array, front_end: FrontEnd) -> jax.Array:
    """(B, L) -> (B, P), in which the first frame starts at sample 0."""
    if front_end.frames == "inside":  # a shorter window has zeros around it
        half = (front_end.n_fft - front_end.span) // 2
        return jnp.pad(waveform, ((0, 0), (half, half)))
    half = front_end.n_fft // 2
    return jnp.pad(waveform, ((0, 0), (half, half)), mode="reflect")


def _segments(waveform: jax.Array, front_end: FrontEnd) -> jax.Array:
    """(B, L) -> (B S, segment), the segments of each waveform in order."""
    padded = jnp.pad(waveform, ((0, 0), (0, front_end.span - front_end.hop)))
    starts = front_end.segment_hop * np.arange(front_end.num_segments(waveform.shape[1]))
    parts = [padded[:, start : start + front_end.segment] for start in starts]
    return jnp.stack(parts, axis=1).reshape(-1, front_end.segment)
