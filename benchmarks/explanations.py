"""Can explanations be trusted? Their fidelity, and whether they find the events that relate.

    python benchmarks/explanations.py --workdir runs/synthetic --part fidelity
    python benchmarks/explanations.py --workdir runs/synthetic --part relations
    python benchmarks/explanations.py --workdir runs/synthetic --part sounds
    python benchmarks/explanations.py --part control

  fidelity   a run's test split: log-odds left while events or edges are deleted in the order of
             their contributions, in random order and in reverse;
  relations  clips of the relational scene pairs: is the edge that contributes most one between
             the two events that relate, and what do edges contribute at all;
  sounds     the same clips: events taken out of the audio, one and two at a time;
  control    a graph head that must read relations from its edges (relation_tokens.py's true
             activity with positions, which without MEL stays at chance): the same contributions.

Prints Markdown tables.
"""

import argparse
import json
from pathlib import Path

import harness
import jax
import numpy as np

from ergl_jax.datasets import sources, synthetic
from ergl_jax.inference import fidelity
from ergl_jax.inference.classify import load
from ergl_jax.inference.explain import METHODS, Explainer, integration_steps
from ergl_jax.inference.graph import GraphReader, scene_log_odds
from ergl_jax.inference.stems import sound_relations

PARTNER = {a: b for pair in synthetic.RELATIONAL_PAIRS for a, b in (pair, pair[::-1])}


def test_clips(workdir: Path):
    """A run's Explainer, and name, scene and log-mel (F, M) of each clip of its test split."""
    from ml_collections import ConfigDict

    explainer = Explainer(load(workdir / "bundle"))
    config = ConfigDict(json.loads((workdir / "config.json").read_text(encoding="utf-8")))
    dataset = sources.open_dataset(config.data)
    clips = dataset.split("test").arrays()
    scenes = [dataset.scenes[index] for index in clips["scene"]]
    return explainer, list(zip(clips["name"], scenes, clips["log_mel"], strict=True))


def measure_fidelity(workdir: Path) -> str:
    explainer, clips = test_clips(workdir)
    rows = []
    opened = [explainer.open_log_mel(log_mel) for _, _, log_mel in clips]
    for method in METHODS:
        found = {"events": [], "edges": []}
        for graph in opened:
            scene = int(graph.scene_logits.argmax())
            parts = graph.nodes, graph.edges
            both = explainer.reader.contributions(*parts, scene, steps=integration_steps(method))
            for contributions in both:
                curves = fidelity.curves(explainer.reader, *parts, scene, contributions)
                found[curves.what].append(curves)
        for what, each in found.items():
            row = [what, method]
            for name in ("delete", "insert"):
                areas = np.array([list(curves.areas[name].values()) for curves in each])
                row += [f"{x:.2f}" for x in areas.mean(axis=0)]
                better = (
                    areas[:, 0] < areas[:, 1] if name == "delete" else areas[:, 0] > areas[:, 1]
                )
                row += [f"{100 * better.mean():.0f} %"]
            chance = np.mean([curves.delete_chance <= fidelity.CHANCE for curves in each])
            rows.append([*row, f"{100 * chance:.0f} %"])
    header = ["parts", "method", "delete: explained", "random", "reverse", "explained below random"]
    header += ["insert: explained", "random", "reverse", "explained above random", "p <= 0.05"]
    return f"{len(clips)} clips\n\n" + harness.table(header, rows)


class Hits:
    """Whether the parts that contribute most are the two events that relate, by method."""

    def __init__(self):
        self.edges = {method: [] for method in METHODS}
        self.nodes = {method: [] for method in METHODS}

    def add(self, reader: GraphReader, nodes, edges, scene: int, related: set[int]) -> None:
        for method in METHODS:
            on_nodes, on_edges = reader.contributions(
                nodes, edges, scene, steps=integration_steps(method)
            )
            self.edges[method].append(top_pair(on_edges) == related)
            two = np.argsort(np.abs(on_nodes))[-2:]
            self.nodes[method].append({int(k) for k in two} == related)


def measure_relations(workdir: Path) -> str:
    explainer, clips = test_clips(workdir)
    events, scenes = explainer.model.bundle.events, explainer.model.bundle.scenes
    changed, shifts, by_receiver, hits = 0, [], [], Hits()
    for _, truth, log_mel in clips:
        graph = explainer.open_log_mel(log_mel)
        parts = graph.nodes, graph.edges
        # Channel by channel: what is left among the senders of each receiver, of all variance.
        left = graph.edges.var(axis=1).mean(axis=0).sum() / graph.edges.var(axis=(0, 1)).sum()
        by_receiver.append(1 - left)
        n, scene = len(events), int(graph.scene_logits.argmax())
        bare = explainer.reader.read(*parts, np.ones((1, n)), np.zeros((1, n, n)))[0]
        changed += int(bare.argmax() != scene)
        shifts.append(
            float(scene_log_odds(graph.scene_logits, scene) - scene_log_odds(bare, scene))
        )
        if truth in PARTNER and scenes[scene] == truth:
            related = {events.index(event) for event in synthetic.related(truth)}
            hits.add(explainer.reader, *parts, scene, related)
    rows = []
    for method in METHODS:
        rows += [
            [f"{method}: the strongest edge joins the related events", share(hits.edges[method])]
        ]
        rows += [[f"{method}: the two strongest events are they", share(hits.nodes[method])]]
    rows += [
        ["either, by chance", f"{200 / (n * (n - 1)):.1f} %"],
        ["scenes that change when all edges are removed", f"{changed} of {len(clips)}"],
        ["change of log-odds then, mean of absolute values", f"{np.abs(shifts).mean():.2f} nats"],
        ["variance of edges that their receiver explains", f"{100 * np.mean(by_receiver):.1f} %"],
    ]
    return harness.table(["", ""], rows)


def top_pair(edges: np.ndarray) -> set[int]:
    """The two different events of the edge (n, n) that contributes most, either way."""
    size = np.abs(edges) * ~np.eye(len(edges), dtype=bool)
    return {int(k) for k in np.unravel_index(size.argmax(), size.shape)}


def share(hits: list[bool]) -> str:
    return f"{100 * np.mean(hits):.1f} % ({sum(hits)} of {len(hits)})"


def measure_sounds(workdir: Path, takes: int) -> str:
    model = load(workdir / "bundle")
    rate, seconds = model.bundle.front_end.sample_rate, model.bundle.clip_seconds
    found = {"all others": [], "the pair's other scene": []}
    alone, by_chance = [], []
    last = synthetic.TRAIN_LOCATIONS + synthetic.TEST_LOCATIONS
    for scene, name in enumerate(synthetic.SCENES):
        if name not in PARTNER:
            continue
        for location in range(synthetic.TRAIN_LOCATIONS, last):
            for take in range(takes):
                clip = synthetic.Synthesis(0, scene, location, take, seconds)
                background, stems = clip.stems(rate)
                for target, against in zip(found, (None, PARTNER[name]), strict=True):
                    if (
                        model.classify(background + sum(stems.values()), sample_rate=rate).scene
                        != name
                    ):
                        continue
                    relations = sound_relations(
                        model, stems, sample_rate=rate, background=background, against=against
                    )
                    related = set(synthetic.related(name))
                    found[target].append(set(relations.strongest) == related)
                    if against:
                        two = np.argsort(relations.alone)[-2:]
                        alone.append({relations.names[k] for k in two} == related)
                        by_chance.append(2 / len(stems) / (len(stems) - 1))
    rows = [
        [f"the pair of sounds that tells most, against {k}", share(v)] for k, v in found.items()
    ]
    rows += [
        ["the two sounds that tell most alone, against the pair's other scene", share(alone)],
        ["by chance", f"{100 * np.mean(by_chance):.1f} %"],
    ]
    return harness.table(["", "are the related events"], rows)


def measure_control(seeds: list[int], takes: int, updates: int) -> str:
    rows = []
    for seed in seeds:
        right, hits = control(seed, takes, updates)
        rows.append([seed, f"{100 * np.mean(right):.1f} %"])
        rows[-1] += [share(each[method]) for each in (hits.edges, hits.nodes) for method in METHODS]
    header = ["seed", "accuracy on relational pairs"]
    header += [f"{what}: {method}" for what in ("edge", "events") for method in METHODS]
    return harness.table(header, rows)


def control(seed: int, takes: int, updates: int) -> tuple[list[bool], Hits]:
    """Clips of the relational pairs that a trained control names, and the Hits of these."""
    import relation_tokens as tokens

    rolls, scenes = tokens.activity("train", takes, seed)
    train = tokens.activity_tokens(rolls), scenes
    head, variables, added = tokens.fit_head(
        train, mel=True, position=True, updates=updates, seed=seed
    )
    readout = head.readout
    reader = GraphReader(lambda *graph: readout.apply(variables, *graph, train=False)[0])
    run = jax.jit(lambda v: head.apply(variables, v + added, train=False))
    rolls, scenes = tokens.activity("test", 10, seed)
    right, hits = [], Hits()
    for v, scene in zip(tokens.activity_tokens(rolls), map(int, scenes), strict=True):
        if not (names := synthetic.related(synthetic.SCENES[scene])):
            continue
        output = jax.device_get(run(v[None]))
        right.append(int(output.scene_logits[0].argmax()) == scene)
        if right[-1]:
            graph = output.graph.nodes_in[0], output.graph.edges_in[0]
            hits.add(reader, *graph, scene, {synthetic.EVENTS.index(name) for name in names})
    return right, hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--part", choices=["fidelity", "relations", "sounds", "control"], required=True
    )
    parser.add_argument("--workdir", type=Path, help="of a finished run on the synthetic corpus")
    parser.add_argument("--takes", type=int, default=5, help="sounds: clips a scene and location")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="control")
    parser.add_argument("--updates", type=int, default=1500, help="control: of the graph head")
    options = parser.parse_args()
    if options.part == "control":
        print(measure_control(options.seeds, 40, options.updates))
    elif options.workdir is None:
        parser.error("--workdir is needed")
    elif options.part == "fidelity":
        print(measure_fidelity(options.workdir))
    elif options.part == "relations":
        print(measure_relations(options.workdir))
    else:
        print(measure_sounds(options.workdir, options.takes))


if __name__ == "__main__":
    main()
