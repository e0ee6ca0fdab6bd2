"""Can explanations be trusted? Their fidelity, and whether they find the related events.

  python benchmarks/explanations.py --part fidelity runs/synthetic
  python benchmarks/explanations.py --part relations runs/seed0 runs/seed1 runs/seed2
  python benchmarks/explanations.py --part sounds runs/synthetic

fidelity   the test split: log-odds after deleting events or edges in the order of their
           contributions, in random order and in reverse;
relations  the test split: how much edges decide; in scenes whose events relate, whether the edge
           that contributes most joins the related events; whether several runs agree;
sounds     clips of the synthetic corpus: events removed from the audio, one and two at a time.

For runs of ERGL and of the dynamic event graph, on the corpora `synthetic`, `delays` and, with the
scenes of data_prep/soundscapes.yaml, soundscapes.
"""

from pathlib import Path

import harness
import numpy as np
from stems import sound_relations

from ergl_jax.cli.atlas import open_run
from ergl_jax.datasets import scene_files, synthetic
from ergl_jax.inference import atlas, fidelity
from ergl_jax.inference.classify import load
from ergl_jax.inference.contributions import scene_log_odds
from ergl_jax.inference.explain import METHODS

PARTNER = {a: b for pair in synthetic.RELATIONAL_PAIRS for a, b in (pair, pair[::-1])}
SOUNDSCAPES = Path(__file__).parents[1] / "data_prep" / "soundscapes.yaml"


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


def related_events() -> dict[str, tuple[str, ...]]:
    """The two related events of each scene that is defined by such a relation."""
    scenes = [*synthetic.SCENES, *synthetic.DELAYS]
    found = {scene: synthetic.related(scene) for scene in scenes if synthetic.related(scene)}
    for scene in scene_files.read_scenes(SOUNDSCAPES).scenes:
        for part in scene.parts:
            if part.how != "freely":
                found[scene.name] = part.events
    return found


def measure_relations(workdirs: list[Path]) -> str:
    columns = [relations_of(workdir) for workdir in workdirs]
    rows = []
    for name in columns[0]:
        values = [column[name] for column in columns]
        rows.append([name, *(f"{x:.3g}" for x in values), f"{np.mean(values):.3g}"])
    table = harness.table(["", *(str(path) for path in workdirs), "mean"], rows)
    if len(workdirs) == 1:
        return table
    agreed = atlas.agreement([atlas.survey(*open_run(workdir)) for workdir in workdirs])
    return table + (
        f"\nrank correlation of contributions, {agreed['clips']} pairs of runs and clips: "
        f"events {agreed['events']:.2f}, relations {agreed['relations']:.2f}"
    )


def relations_of(workdir: Path) -> dict[str, float]:
    """The figures of one run; shares in %."""
    explainer, clips = open_run(workdir)
    events, scenes = explainer.model.bundle.events, explainer.model.bundle.scenes
    n, related = len(events), related_events()
    pairs = np.transpose(np.triu_indices(n, 1))
    without = np.ones((len(pairs), n, n))
    for row, (i, j) in zip(without, pairs, strict=True):
        row[i, j] = row[j, i] = 0
    found = {name: [] for name in ("right", "pair right", "changed", "pair changed")}
    hits = {name: [] for name in ("deletion", *METHODS, "events")}
    shifts, by_receiver = [], []
    for _, truth, log_mel in clips:
        graph = explainer.activations(log_mel)
        parts, scene = (graph.nodes, graph.edges), int(graph.scene_logits.argmax())
        # The share of the edges' variance that the receiver explains, over channels.
        if whole := graph.edges.var(axis=(0, 1)).sum():
            by_receiver.append(1 - graph.edges.var(axis=1).mean(axis=0).sum() / whole)
        bare = explainer.reader.read(*parts, np.ones((1, n)), np.zeros((1, n, n)))[0]
        log_odds = [scene_log_odds(logits, scene) for logits in (graph.scene_logits, bare)]
        shifts.append(abs(float(log_odds[0] - log_odds[1])))
        right, changed = scenes[scene] == truth, int(bare.argmax()) != scene
        for kind in ("", "pair ") if truth in related else ("",):
            found[f"{kind}right"].append(right)
            found[f"{kind}changed"].append(changed)
        if truth not in related or not right:
            continue
        wanted = {events.index(event) for event in related[truth]}
        deleted = explainer.reader.read(*parts, np.ones((len(pairs), n)), without)
        falls = log_odds[0] - np.asarray(scene_log_odds(deleted, scene))
        hits["deletion"].append({*map(int, pairs[np.abs(falls).argmax()])} == wanted)
        for method, steps in METHODS.items():
            on_nodes, on_edges = explainer.reader.contributions(*parts, scene, steps=steps)
            of_pairs = np.array([on_edges[i, j] + on_edges[j, i] for i, j in pairs])
            hits[method].append({*map(int, pairs[np.abs(of_pairs).argmax()])} == wanted)
        hits["events"].append({*map(int, np.argsort(np.abs(on_nodes))[-2:])} == wanted)
    share = {name: 100 * float(np.mean(each)) if each else np.nan for name, each in found.items()}
    hit = {name: 100 * float(np.mean(each)) if each else np.nan for name, each in hits.items()}
    return {
        "accuracy, %": share["right"],
        "in scenes with a relation, %": share["pair right"],
        "scenes that change without edges, %": share["changed"],
        "of those with a relation, %": share["pair changed"],
        "strongest pair is the related one, by deletion, %": hit["deletion"],
        "by gradient times input, %": hit["gradient"],
        "by integrated gradients, %": hit["integrated"],
        "the two strongest events are the related ones, %": hit["events"],
        "by chance, %": 100 / len(pairs),
        "change of log-odds without edges, nats": float(np.mean(shifts)),
        "edges' variance that the receiver explains, %": 100 * float(np.mean(by_receiver)),
    }


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
    add("workdirs", type=Path, nargs="+", help="finished runs")
    add("--takes", type=harness.positive, default=5, help="sounds: clips of a scene and location")
    options = parser.parse_args()
    if options.part == "relations":
        print(measure_relations(options.workdirs))
        return
    for workdir in options.workdirs:
        print(workdir, end="\n\n")
        if options.part == "fidelity":
            print(measure_fidelity(workdir))
        else:
            print(measure_sounds(workdir, options.takes))


if __name__ == "__main__":
    harness.start(main)
