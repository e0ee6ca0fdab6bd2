"""Can explanations be trusted? Their fidelity, and whether they find the related events.

  python benchmarks/explanations.py --workdir runs/synthetic --part fidelity
  python benchmarks/explanations.py --workdir runs/synthetic --part relations
  python benchmarks/explanations.py --workdir runs/synthetic --part sounds

fidelity   a run's test split: log-odds after deleting events or edges in the order of their
           contributions, in random order and in reverse;
relations  clips of the relational scene pairs: whether the edge that contributes most joins the
           two related events, and how much edges contribute at all;
sounds     the same clips: events removed from the audio, one and two at a time.
"""

from pathlib import Path

import harness
import numpy as np
from stems import sound_relations

from ergl_jax.cli.atlas import open_run
from ergl_jax.datasets import synthetic
from ergl_jax.inference import fidelity
from ergl_jax.inference.classify import load
from ergl_jax.inference.contributions import scene_log_odds
from ergl_jax.inference.explain import METHODS

PARTNER = {a: b for pair in synthetic.RELATIONAL_PAIRS for a, b in (pair, pair[::-1])}


def percent(hits: list[bool]) -> str:
    return f"{100 * np.mean(hits):.1f} % ({sum(hits)} of {len(hits)})" if hits else "no clip"


def measure_fidelity(workdir: Path) -> str:
    explainer, clips = open_run(workdir)
    graphs = [explainer.activations(log_mel) for _, _, log_mel in clips]
    rows = []
    for method in METHODS:
        found = {"events": [], "edges": []}
        for graph in graphs:
            scene = int(graph.scene_logits.argmax())
            parts = graph.nodes, graph.edges
            both = explainer.reader.contributions(*parts, scene, steps=METHODS[method])
            for contributions in both:
                curves = fidelity.curves(explainer.reader, *parts, scene, contributions)
                found[curves.what].append(curves)
        for what, each in found.items():
            row = [what, method]
            for name, sign in (("delete", 1), ("insert", -1)):
                areas = np.array([list(curves.areas[name].values()) for curves in each])
                better = sign * areas[:, 0] < sign * areas[:, 1]
                row += [*(f"{x:.2f}" for x in areas.mean(axis=0)), f"{100 * better.mean():.0f} %"]
            chance = np.mean([curves.delete_chance <= fidelity.SIGNIFICANCE for curves in each])
            rows.append([*row, f"{100 * chance:.0f} %"])
    header = ["parts", "method", "delete: explained", "random", "reverse", "explained below random"]
    header += ["insert: explained", "random", "reverse", "explained above random", "p <= 0.05"]
    return f"{len(graphs)} clips\n\n" + harness.table(header, rows)


def measure_relations(workdir: Path) -> str:
    explainer, clips = open_run(workdir)
    events, scenes = explainer.model.bundle.events, explainer.model.bundle.scenes
    n, changed, shifts, by_receiver = len(events), [], [], []
    edge_hits = {method: [] for method in METHODS}
    event_hits = {method: [] for method in METHODS}
    for _, truth, log_mel in clips:
        graph = explainer.activations(log_mel)
        parts, scene = (graph.nodes, graph.edges), int(graph.scene_logits.argmax())
        # The variance among the senders of a receiver, as a part of the whole, over channels.
        left = graph.edges.var(axis=1).mean(axis=0).sum() / graph.edges.var(axis=(0, 1)).sum()
        by_receiver.append(1 - left)
        bare = explainer.reader.read(*parts, np.ones((1, n)), np.zeros((1, n, n)))[0]
        changed.append(int(bare.argmax()) != scene)
        log_odds = [scene_log_odds(logits, scene) for logits in (graph.scene_logits, bare)]
        shifts.append(float(log_odds[0] - log_odds[1]))
        if truth not in PARTNER or scenes[scene] != truth:
            continue
        related = {events.index(event) for event in synthetic.related(truth)}
        for method in METHODS:
            steps = METHODS[method]
            on_nodes, on_edges = explainer.reader.contributions(*parts, scene, steps=steps)
            size = np.abs(on_edges) * ~np.eye(n, dtype=bool)
            strongest = np.unravel_index(size.argmax(), size.shape)
            edge_hits[method].append(set(map(int, strongest)) == related)
            event_hits[method].append(set(map(int, np.argsort(np.abs(on_nodes))[-2:])) == related)
    rows = []
    for method in METHODS:
        edge = f"{method}: the strongest edge joins the related events"
        rows += [[edge, percent(edge_hits[method])]]
        rows += [[f"{method}: the two strongest events are they", percent(event_hits[method])]]
    rows += [
        ["either, by chance", f"{200 / (n * (n - 1)):.1f} %"],
        ["scenes that change when all edges are removed", f"{sum(changed)} of {len(changed)}"],
        ["change of log-odds then, mean of absolute values", f"{np.abs(shifts).mean():.2f} nats"],
        ["variance of edges that their receiver explains", f"{100 * np.mean(by_receiver):.1f} %"],
    ]
    return harness.table(["", ""], rows)


def measure_sounds(workdir: Path, takes: int) -> str:
    model = load(workdir / "bundle")
    rate, seconds = model.bundle.front_end.sample_rate, model.bundle.clip_seconds
    found = {"all others": [], "the pair's other scene": []}
    alone, by_chance = [], []
    first = synthetic.TRAIN_LOCATIONS
    drawn = [
        synthetic.Synthesis(0, synthetic.SCENES.index(name), location, take, seconds)
        for name in PARTNER
        for location in range(first, first + synthetic.TEST_LOCATIONS)
        for take in range(takes)
    ]
    for clip in drawn:
        name = synthetic.SCENES[clip.scene]
        background, stems = clip.stems(rate)
        mixture = background + sum(stems.values())
        if model.classify(mixture, sample_rate=rate).scene != name:
            continue
        related = set(synthetic.related(name))
        for target, against in zip(found, (None, PARTNER[name]), strict=True):
            relations = sound_relations(
                model, stems, sample_rate=rate, background=background, against=against
            )
            found[target].append(set(relations.strongest) == related)
        two = np.argsort(relations.alone)[-2:]
        alone.append({relations.names[k] for k in two} == related)
        by_chance.append(2 / len(stems) / (len(stems) - 1))
    rows = [
        [f"the pair of sounds that matters most, against {k}", percent(v)] for k, v in found.items()
    ]
    rows += [
        ["the two sounds that matter most alone, against the pair's other scene", percent(alone)],
        ["by chance", f"{100 * np.mean(by_chance or [np.nan]):.1f} %"],
    ]
    return harness.table(["", "are the related events"], rows)


def main() -> None:
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--part", choices=["fidelity", "relations", "sounds"], required=True)
    add("--workdir", type=Path, required=True, help="of a finished run on the synthetic corpus")
    add("--takes", type=harness.positive, default=5, help="sounds: clips of a scene and location")
    options = parser.parse_args()
    if options.part == "fidelity":
        print(measure_fidelity(options.workdir))
    elif options.part == "relations":
        print(measure_relations(options.workdir))
    else:
        print(measure_sounds(options.workdir, options.takes))


if __name__ == "__main__":
    harness.start(main)
