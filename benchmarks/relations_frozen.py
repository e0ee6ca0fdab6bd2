"""Where do relations enter the graph? The synthetic corpus with an encoder that knows events alone.

    python benchmarks/relations_frozen.py --seeds 0 1 2

Stage one trains encoder, event embeddings and event classifier on the event loss alone. Stage two
freezes them and trains what comes after, on the scene loss, with and without MEL: now relations can
only be read from event tokens, not be put there by the encoder. Prints a Markdown table.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import runs

from configs import ergl
from ergl_jax import models
from ergl_jax.datasets import batches, sources
from ergl_jax.datasets.events import top_events
from ergl_jax.datasets.synthetic import RELATIONAL_PAIRS
from ergl_jax.training import feed, losses

EVENT_LAYERS = ("encoder", "events", "event_classifier")
VARIANTS = {"with MEL": True, "without MEL": False}


def optimizer(steps: int, *, events: bool) -> optax.GradientTransformation:
    """AdamW on the event layers or on all the others; the rest stays as it is."""
    adamw = optax.adamw(optax.cosine_decay_schedule(2e-3, steps), weight_decay=1e-2)
    return optax.multi_transform(
        {"train": adamw, "freeze": optax.set_to_zero()},
        lambda params: {
            name: jax.tree.map(
                lambda _, train=(name in EVENT_LAYERS) == events: "train" if train else "freeze",
                tree,
            )
            for name, tree in params.items()
        },
    )


def train(model, variables, data, *, events: bool, epochs: int, batch: int, seed: int, scenes: int):
    """The variables after training on the event loss or, those layers frozen, on the other."""
    count = len(data["scene"])
    each = len(batches.train_indices(count, batch, seed=seed, epoch=0))
    transform = optimizer(each * epochs, events=events)
    part = "event_loss" if events else "scene_loss"

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(variables, state, clips, key):
        def loss(params):
            output, changed = model.apply(
                {**variables, "params": params},
                clips["log_mel"],
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            scene = jax.nn.one_hot(clips["scene"], scenes)
            parts = losses.losses(output, scene=scene, events=clips["events"])
            return parts[part], changed["batch_stats"]

        grads, statistics = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = transform.update(grads, state, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, "batch_stats": statistics}, state

    state = transform.init(variables["params"])
    for epoch in range(1, epochs + 1):
        chosen = batches.train_indices(count, batch, seed=seed, epoch=epoch)
        for number, rows in enumerate(chosen):
            key = jax.random.fold_in(jax.random.key(seed), epoch * each + number)
            clips = {name: x[rows] for name, x in data.items()}
            variables, state = step(variables, state, clips, key)
    return variables


def scene_hits(model, variables, data) -> np.ndarray:
    """Whether each clip's scene is the model's, (N,)."""
    apply = jax.jit(lambda x: model.apply(variables, x, train=False).scene_logits)
    found = [
        np.asarray(apply(jnp.asarray(data["log_mel"][start : start + 50]))).argmax(-1)
        for start in range(0, len(data["scene"]), 50)
    ]
    return np.concatenate(found) == data["scene"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--event_epochs", type=int, default=15)
    parser.add_argument("--graph_epochs", type=int, default=25)
    options = parser.parse_args()

    config = ergl.get_config("synthetic")
    dataset = sources.open_dataset(config.data)
    scenes, batch = len(dataset.scenes), config.train.batch_size
    columns = top_events(dataset.split("train").arrays()["events"], config.data.num_events)
    data = {name: feed.load(dataset.split(name), columns) for name in ("train", "test")}
    related = [dataset.scenes.index(name) for pair in RELATIONAL_PAIRS for name in pair]
    pairs = np.isin(data["test"]["scene"], related)

    scores = {variant: [] for variant in VARIANTS}
    for seed in options.seeds:
        tagger = None
        for variant, mel in VARIANTS.items():
            config.model.mel = mel
            model = models.build(config.model, num_scenes=scenes, num_events=len(columns))
            clip = jnp.asarray(data["train"]["log_mel"][:1])
            variables = model.init({"params": jax.random.key(seed)}, clip, train=False)
            common = {"batch": batch, "seed": seed, "scenes": scenes}
            if tagger is None:
                tagger = train(
                    model,
                    variables,
                    data["train"],
                    events=True,
                    epochs=options.event_epochs,
                    **common,
                )
                variables = model.init({"params": jax.random.key(seed)}, clip, train=False)
            variables = {
                kind: {
                    name: jax.tree.map(jnp.array, tagger[kind][name])
                    if name in EVENT_LAYERS
                    else tree
                    for name, tree in variables[kind].items()
                }
                for kind in variables
            }
            variables = train(
                model, variables, data["train"], events=False, epochs=options.graph_epochs, **common
            )
            hits = scene_hits(model, variables, data["test"])
            scores[variant].append((hits.mean(), hits[pairs].mean(), hits[~pairs].mean()))
            print(seed, variant, *(f"{100 * x:.1f}" for x in scores[variant][-1]), flush=True)
    rows = [
        [variant, *map(runs.mean_std, zip(*each, strict=True))] for variant, each in scores.items()
    ]
    print(runs.table(["", "all scenes", "relational pairs", "other scenes"], rows))


if __name__ == "__main__":
    main()
