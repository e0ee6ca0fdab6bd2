"""Explanations made by hand, for the tests of what is written and drawn of them."""

import numpy as np

from ergl_jax.audio import FRONT_ENDS
from ergl_jax.inference import fidelity
from ergl_jax.inference.classify import Classification, Window
from ergl_jax.inference.explain import Explanation, Opened
from ergl_jax.labels import AUDIOSET

# What an explanation leaves in its directory.
FILES = {
    "explanation.html",
    "explanation.json",
    "graph.graphml",
    *(
        f"{name}.{kind}"
        for name in ("matrix", "graph", "timeline", "curves")
        for kind in ("png", "svg")
    ),
}


LONGEST = sorted(AUDIOSET, key=len, reverse=True)
SECONDS = 2.0
FRONT_END = FRONT_ENDS["panns_16k"]


def curves(what: str, chance: float = 1 / 40) -> fidelity.Curves:
    shares = np.linspace(0, 1, 5)
    falling, middle, rising = 3 * (1 - shares) ** 2, 3 * (1 - shares), 3 * (1 - shares**2)
    return fidelity.Curves(
        what,
        shares,
        {"explanation": falling, "random": middle, "reverse": rising},
        {
            "explanation": rising[::-1],
            "random": middle[::-1],
            "reverse": falling[::-1],
        },
        chance,
        chance,
    )


def explanation(n: int = 4, *, seed: int = 0, **changes) -> Explanation:
    """Random numbers for n events with AudioSet's longest names; `changes` replace fields.

    `scene_logits`, `event_probabilities`, `notes`, `name` and `windows` (how many) too.
    """
    rng = np.random.default_rng(seed)
    scenes = changes.pop("scenes", ("metro_station", "park", "tram"))
    events = changes.pop("events", tuple(LONGEST[:n]))
    logits = np.array(changes.pop("scene_logits", [2.0, 0.5, -1.0]))
    shares = np.exp(logits) / np.exp(logits).sum()
    probabilities = np.array(changes.pop("event_probabilities", rng.uniform(0, 1, n)))
    count = changes.pop("windows", 1)

    def ranked(names, values):
        return {names[i]: float(values[i]) for i in np.argsort(-values, kind="stable")}

    said = {"scenes": ranked(scenes, shares), "events": ranked(events, probabilities)}
    windows = tuple(Window(start=2.0 * k, stop=2.0 * k + 2, **said) for k in range(count))
    classification = Classification(
        start=0.0,
        stop=2.0 * count,
        name=changes.pop("name", "clip.wav"),
        timeline=windows,
        notes=changes.pop("notes", ()),
        **said | changes.pop("whole", {}),
    )
    length = FRONT_END.num_samples(SECONDS)
    frames = FRONT_END.num_frames(SECONDS)
    opened = Opened(
        log_mel=rng.uniform(-100, 0, (frames, FRONT_END.n_mels)).astype(np.float32),
        event_probabilities=probabilities,
        event_times=rng.uniform(0, 1, (n, frames // 32)),
        nodes=rng.normal(size=(n, 3)),
        edges=rng.normal(size=(n, n, 3)),
        scene_logits=logits,
    )
    runner_up, scene = np.argsort(logits, kind="stable")[-2:]
    log_odds = float(np.log(shares[scene] / (1 - shares[scene])))
    fields = {
        "classification": classification,
        "window": 0,
        "waveform": rng.uniform(-0.5, 0.5, length).astype(np.float32),
        "sample_rate": FRONT_END.sample_rate,
        "scenes": scenes,
        "events": events,
        "scene": int(scene),
        "runner_up": int(runner_up),
        "opened": opened,
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
