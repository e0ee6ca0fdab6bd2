"""Explanations of random numbers, for tests of pages and pictures."""

import dataclasses

import numpy as np

from ergl_jax.audio import FRONT_ENDS
from ergl_jax.bundle import Bundle
from ergl_jax.inference import fidelity
from ergl_jax.inference.classify import Classification, Window
from ergl_jax.inference.explanation import Activations, Explanation
from ergl_jax.labels import AUDIOSET
from ergl_jax.models.dynamic import LAGS, event_graph

PICTURES = ("matrix", "graph", "timeline", "curves")
FILES = {"explanation.html", "explanation.json", "graph.graphml"} | {
    f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")
}
LONGEST = sorted(AUDIOSET, key=len, reverse=True)
FRONT_END = FRONT_ENDS["panns_16k"]
SECONDS = 0.32  # of a token


def bundle(**changes) -> Bundle:
    fields = {
        "model": {"name": "ergl"},
        "variables": {},
        "scenes": ("metro_station", "park", "tram"),
        "events": (),
        "front_end": FRONT_END,
        "clip_seconds": 2.0,
        "pad": "zero",
        "licence": "CC BY 4.0",
        "dataset": "esc10",
    }
    return Bundle(**fields | changes)


def dynamic(n: int = 4, **changes):
    """An Explanation of the dynamic event graph: of random activities, where two pairs count."""
    one = explanation(n, **changes)
    a = one.activations
    nodes, edges = (np.asarray(x)[0] for x in event_graph(a.event_times[None], SECONDS))
    activations = dataclasses.replace(a, nodes=nodes, edges=edges, lags=LAGS)
    values = np.zeros((n, n))
    values[1, 0], values[0, 1], values[2, 1] = 0.5, 0.25, -0.125
    return dataclasses.replace(one, activations=activations, edge_contributions=values)


def curves(what: str, p_value: float = 1 / 40) -> fidelity.Curves:
    shares = np.linspace(0, 1, 5)
    low, middle, high = 3 * (1 - shares) ** 2, 3 * (1 - shares), 3 * (1 - shares**2)
    delete = {"explanation": low, "random": middle, "reverse": high}
    insert = {"explanation": high[::-1], "random": middle[::-1], "reverse": low[::-1]}
    return fidelity.Curves(what, shares, delete, insert, p_value, p_value)


def explanation(n: int = 4, *, windows: int = 1, name="clip.wav", notes=(), **changes):
    """An Explanation with n events of AudioSet's longest names; `changes` replace its fields.

    They may also be `scene_logits`, `event_probabilities` and `whole`, of the classification.
    """
    rng = np.random.default_rng(0)
    scenes = changes.pop("scenes", ("metro_station", "park", "tram"))
    events = changes.pop("events", tuple(LONGEST[:n]))
    logits = np.array(changes.pop("scene_logits", [2.0, 0.5, -1.0]))
    p = np.exp(logits) / np.exp(logits).sum()
    event_p = np.array(changes.pop("event_probabilities", rng.uniform(0, 1, n)))

    def ranked(names, values):
        return {names[i]: float(values[i]) for i in np.argsort(-values, kind="stable")}

    both = {"scenes": ranked(scenes, p), "events": ranked(events, event_p)}
    timeline = tuple(Window(start=2.0 * k, stop=2.0 * k + 2, **both) for k in range(windows))
    whole = {"start": 0.0, "stop": 2.0 * windows, **both, **changes.pop("whole", {})}
    frames = FRONT_END.num_frames(2.0)
    activations = Activations(
        log_mel=rng.uniform(-100, 0, (frames, FRONT_END.n_mels)).astype(np.float32),
        event_probabilities=event_p,
        event_times=rng.uniform(0, 1, (n, frames // 32)),
        nodes=rng.normal(size=(n, 3)),
        edges=rng.normal(size=(n, n, 3)),
        scene_logits=logits,
    )
    runner_up, scene = np.argsort(logits, kind="stable")[-2:]
    log_odds = float(np.log(p[scene] / (1 - p[scene])))
    fields = {
        "classification": Classification(name=name, timeline=timeline, notes=notes, **whole),
        "window": 0,
        "waveform": rng.uniform(-0.5, 0.5, FRONT_END.num_samples(2.0)).astype(np.float32),
        "sample_rate": FRONT_END.sample_rate,
        "scenes": scenes,
        "events": events,
        "scene": int(scene),
        "runner_up": int(runner_up),
        "activations": activations,
        "method": "gradient",
        "node_contributions": rng.normal(size=n),
        "edge_contributions": rng.normal(size=(n, n)) / 10,
        "event_curves": curves("events"),
        "edge_curves": curves("edges"),
        "counterfactual": None,
        "scene_without_edges": int(scene),
        "log_odds": log_odds,
        "log_odds_without_edges": log_odds - 1,
    }
    return Explanation(**fields | changes)
