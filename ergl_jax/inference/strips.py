"""Pictures over time: the events of an explained window, the events of a whole recording.

Each function returns a Figure; `pictures.save` writes it. Shapes: n events, T tokens, F frames,
M mel bins.
"""

from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ergl_jax.audio import FrontEnd
from ergl_jax.audio.levels import is_silent
from ergl_jax.audio.mel import mel_edges
from ergl_jax.inference.activity import DETECTED, Activity, step_seconds
from ergl_jax.inference.explanation import Explanation
from ergl_jax.inference.pictures import FAINT, GREY, LINE, POSITIVE, STYLE, WIDTH, label

MEL_TICKS = (200, 500, 1000, 2000, 5000, 10000)  # Hz
PROBABILITY = colormaps["viridis"].with_extremes(bad=(*to_rgb(GREY), FAINT))  # silence: grey
NAME = 22  # characters of an event's name
MIN_EVENTS, MAX_EVENTS = 5, 20  # in the picture of a recording with many


@rc_context(STYLE)
def timeline(explanation: Explanation, front_end: FrontEnd) -> Figure:
    """The window's log-mel spectrogram and, below it, its events over time; silence is grey.

    What fills a shorter recording is not drawn.
    """
    times = explanation.activations.event_times
    log_mel = explanation.activations.log_mel * front_end.decibels
    frame = front_end.frame_seconds
    middle = front_end.span / 2 / front_end.sample_rate if front_end.frames == "inside" else 0.0
    order = np.argsort(-times.max(axis=1), kind="stable")
    strip = LINE * 1.2 * len(order)
    figure = Figure(figsize=(WIDTH, 2.6 + strip), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, strip + 0.1))
    first, last = middle - frame / 2, middle + (len(log_mel) - 0.5) * frame
    above.imshow(
        log_mel.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=max(log_mel.min(), log_mel.max() - 80),
        extent=(first, last, -0.5, front_end.n_mels - 0.5),
    )
    centres = mel_edges(front_end)[1:-1]  # Hz, of the mel filters
    ticks = [x for x in MEL_TICKS if centres[0] <= x <= centres[-1]]
    above.set_yticks(np.interp(ticks, centres, np.arange(len(centres))), ticks)
    above.set_ylabel("mel band (Hz)")
    tokens = times.shape[1]
    seconds = step_seconds(front_end, len(log_mel), tokens)
    length = seconds * explanation.sample_rate
    silent = [
        is_silent(explanation.sound[round(k * length) : round((k + 1) * length)])
        for k in range(tokens)
    ]
    image = below.imshow(
        np.ma.masked_array(times[order], np.broadcast_to(silent, times.shape)),
        aspect="auto",
        cmap=PROBABILITY,
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=(0, tokens * seconds, len(order) - 0.5, -0.5),
    )
    names = [label(explanation.events[i], longest=NAME) for i in order]
    below.set_yticks(range(len(order)), names)
    below.set_xlabel("seconds of the window")
    below.set_xlim(0, len(explanation.sound) / explanation.sample_rate)
    _scale(figure, image)
    return figure


@rc_context(STYLE)
def activity(found: Activity, threshold: float = DETECTED) -> Figure:
    """A recording's events over time, with a line where each is present; silence is grey.

    The events that reach the threshold, the most probable first: MAX_EVENTS at most, and
    MIN_EVENTS at least.
    """
    highest = np.nan_to_num(found.probabilities, nan=0.0).max(axis=0)  # (n,)
    present = int((highest >= threshold).sum())
    count = min(max(present, MIN_EVENTS), MAX_EVENTS)
    order = np.argsort(-highest, kind="stable")[:count]
    rows = {found.events[i]: row for row, i in enumerate(order)}
    figure = Figure(figsize=(2 * WIDTH, 1.2 + LINE * 1.5 * len(order)), layout="constrained")
    axes = figure.subplots()
    image = axes.pcolormesh(
        found.edges,
        np.arange(len(order) + 1) - 0.5,
        np.ma.masked_invalid(found.probabilities[:, order].T),
        cmap=PROBABILITY,
        vmin=0,
        vmax=1,
        rasterized=True,
    )
    spans = [span for span in found.spans(threshold) if span.event in rows]
    onsets, offsets, events = zip(*spans, strict=True) if spans else ((), (), ())
    axes.hlines([rows[event] + 0.4 for event in events], onsets, offsets, color=POSITIVE, lw=2)
    axes.set(xlabel="seconds", xlim=(0, found.edges[-1]), ylim=(len(order) - 0.5, -0.5))
    axes.set_yticks(range(len(order)), [label(event, longest=NAME) for event in rows])
    if present > count:
        axes.set_title(f"the {count} most probable of {present} events")
    _scale(figure, image, f"; red: {threshold:g} or more")
    return figure


def _scale(figure: Figure, image: ScalarMappable, more: str = "") -> None:
    """The scale of probabilities, below a figure's last axes."""
    text = f"probability; grey: silence{more}"
    bar: Any = {"orientation": "horizontal", "aspect": 30, "label": text}
    figure.colorbar(image, ax=figure.axes[-1], **bar)
