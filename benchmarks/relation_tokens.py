"""Which event tokens let MEL see a relation? ERGL's graph head alone, on tokens of known content.

    python benchmarks/relation_tokens.py --seeds 0 1 2

The scenes of the synthetic corpus, whose relational pairs differ in timing alone. Tokens are

  activity   what truly sounds: each token tells how much of its frame its own event sounds, and
             nothing of any other event or of time;
  tagger     an encoder's, trained on the event loss alone and then frozen, as §2.1 describes it;

each as it is and with its position in time added (sinusoids). The head is trained with and without
MEL. Prints a Markdown table of accuracy on clips of other locations, in %.
"""

import argparse

import flax.linen as nn
import harness
import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import ergl
from ergl_jax import models
from ergl_jax.datasets import batches, sources, synthetic
from ergl_jax.models.ergl import GraphHead, GraphReadout
from ergl_jax.models.events import EventClassifier, EventEmbeddings, pool_tokens
from ergl_jax.training import device_data, losses
from ergl_jax.training.augmentation import make_augment
from ergl_jax.training.optimizer import adamw
from ergl_jax.training.step import AXIS, Trainer, init_state, replicate, unreplicate

SCENES = len(synthetic.SCENES)
FRAMES, CHANNELS, BATCH = 31, 64, 32
RELATED = [synthetic.SCENES.index(name) for pair in synthetic.RELATIONAL_PAIRS for name in pair]


def activity(split: str, takes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The share of each frame in which each event sounds, (N, n, T), and the scenes (N,)."""
    first, count = {
        "train": (0, synthetic.TRAIN_LOCATIONS),
        "test": (synthetic.TRAIN_LOCATIONS, synthetic.TEST_LOCATIONS),
    }[split]
    rolls, scenes = [], []
    edges = np.linspace(0, 5.0, FRAMES + 1)
    for scene in range(SCENES):
        for location in range(first, first + count):
            for take in range(takes):
                roll = np.zeros((len(synthetic.EVENTS), FRAMES), np.float32)
                clip = synthetic.Synthesis(seed, scene, location, take, 5.0)
                for event, bursts in clip.activity().items():
                    for start, stop in bursts:
                        inside = np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start)
                        roll[synthetic.EVENTS.index(event)] += np.maximum(inside, 0) / edges[1]
                rolls.append(roll)
                scenes.append(scene)
    return np.stack(rolls), np.array(scenes)


def activity_tokens(rolls: np.ndarray) -> np.ndarray:
    """(N, n, T) -> (N, n, T, C): on the way from each event's vector of rest to that of sound."""
    rng = np.random.default_rng(0)
    rest, sound = np.maximum(rng.normal(size=(2, rolls.shape[1], 1, CHANNELS)), 0)
    return (rest + rolls[..., None] * (sound - rest)).astype(np.float32)


def positions() -> np.ndarray:
    """Sinusoids (T, C), as in arXiv 1706.03762."""
    rates = np.pi * np.arange(1, CHANNELS // 2 + 1) / FRAMES
    phase = np.arange(FRAMES)[:, None] * rates
    return np.concatenate([np.sin(phase), np.cos(phase)], axis=1).astype(np.float32)


class Tagger(nn.Module):
    """ERGL up to its event classifier; scene logits are constant, so only the event loss acts."""

    encoder: models.Encoder
    num_events: int

    def setup(self):
        self.events = EventEmbeddings(self.num_events, CHANNELS, dropout=0.2)
        self.classifier = EventClassifier()

    def tokens(self, log_mel, *, train: bool):
        return self.events(self.encoder(log_mel, train=train), train=train)

    def __call__(self, log_mel, *, train: bool):
        v = self.tokens(log_mel, train=train)
        scene_logits = jnp.zeros((len(log_mel), SCENES))
        return models.Output(scene_logits, self.classifier(pool_tokens(v)))


def tagger_tokens(clips: int, epochs: int, seed: int) -> dict:
    """Tokens (N, n, T, C) and scenes (N,) of both splits, by a tagger trained on the first."""
    config = ergl.get_config("synthetic")
    config.data.train_clips_per_scene, config.data.validation_fraction = clips, 0.0
    dataset = sources.open_dataset(config.data)
    columns = np.arange(len(dataset.events))
    data = {name: device_data.load(dataset.split(name), columns) for name in ("train", "test")}
    encoder = models.Encoder(
        config.model.encoder.architecture,
        config.model.encoder.width_divisor,
        config.model.encoder.dropout,
        AXIS,
    )
    model, size = Tagger(encoder, len(columns)), config.train.batch_size
    count = len(data["train"]["scene"])
    each = len(batches.train_indices(count, size, seed=seed, epoch=0))
    optimiser = adamw(config.optimizer, steps_per_epoch=each, epochs=epochs)
    trainer = Trainer(model, optimiser, make_augment(config.augment), num_scenes=SCENES, seed=seed)
    shape = data["train"]["log_mel"].shape[1:]
    state = replicate(init_state(model, optimiser, seed=seed, shape=shape))
    resident = replicate(data["train"])
    for epoch in range(1, epochs + 1):
        rows = batches.train_indices(count, size, seed=seed, epoch=epoch)
        state, metrics = trainer.epoch(state, resident, rows)
        print(f"tagger {seed}, epoch {epoch}: {metrics['event_loss'].mean():.4f}", flush=True)
    state = unreplicate(state)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    run = jax.jit(lambda x: model.apply(variables, x, train=False, method=Tagger.tokens))
    return {
        name: (
            np.concatenate(
                [run(part["log_mel"][i : i + 40]) for i in range(0, len(part["scene"]), 40)]
            ),
            part["scene"],
        )
        for name, part in data.items()
    }


def fit_head(train: tuple, *, mel: bool, position: bool, updates: int, seed: int) -> tuple:
    """A GraphHead trained on tokens and scenes, its variables, and what is added to tokens."""
    added = positions() if position else np.zeros((FRAMES, CHANNELS), np.float32)
    head = GraphHead(GraphReadout(SCENES, dropout=0.2), mel=mel)
    tokens, scenes = train[0], jnp.asarray(train[1])
    variables = head.init({"params": jax.random.key(seed)}, tokens[:1], train=False)
    params, stats = variables["params"], variables["batch_stats"]
    optimiser = optax.adamw(
        optax.cosine_onecycle_schedule(updates, 2e-3, pct_start=0.1), weight_decay=1e-2
    )

    @jax.jit
    def step(params, stats, state, v, scene, key):
        def loss(params):
            output, changed = head.apply(
                {"params": params, "batch_stats": stats},
                v + added,
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            targets = jax.nn.one_hot(scene, SCENES)
            value = losses.scene_loss(logits=output.scene_logits, targets=targets)
            return value, changed["batch_stats"]

        grads, stats_new = jax.grad(loss, has_aux=True)(params)
        change, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, change), stats_new, state

    state, rng = optimiser.init(params), np.random.default_rng(seed)
    for number in range(updates):
        rows = rng.choice(len(tokens), BATCH, replace=False)
        key = jax.random.fold_in(jax.random.key(seed), number)
        params, stats, state = step(params, stats, state, tokens[rows], scenes[rows], key)
    return head, {"params": params, "batch_stats": stats}, added


def score_head(data: dict, **settings) -> list[float]:
    """Accuracy of a trained head on the test clips: all, those of the pairs, the others."""
    head, variables, added = fit_head(data["train"], **settings)
    test, truth = data["test"]

    @jax.jit
    def predict(v):
        return head.apply(variables, v + added, train=False).scene_logits.argmax(-1)

    found = np.concatenate([predict(test[i : i + 40]) for i in range(0, len(test), 40)])
    hits, related = found == truth, np.isin(truth, RELATED)
    return [float(x.mean()) for x in (hits, hits[related], hits[~related])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--takes", type=int, default=40, help="activity: clips a location and scene"
    )
    parser.add_argument("--clips", type=int, default=200, help="tagger: training clips a scene")
    parser.add_argument("--epochs", type=int, default=5, help="of the tagger")
    parser.add_argument("--updates", type=int, default=1500, help="of the graph head")
    parser.add_argument("--tokens", nargs="+", default=["activity", "tagger"])
    options = parser.parse_args()
    scores = {}
    for seed in options.seeds:
        for kind in options.tokens:
            if kind == "activity":
                rolls = {
                    "train": activity("train", options.takes, seed),
                    "test": activity("test", 10, seed),
                }
                data = {name: (activity_tokens(x), y) for name, (x, y) in rolls.items()}
            else:
                data = tagger_tokens(options.clips, options.epochs, seed)
            for position in (False, True):
                for mel in (True, False):
                    found = score_head(
                        data, mel=mel, position=position, updates=options.updates, seed=seed
                    )
                    name = (kind, "yes" if position else "no", "with" if mel else "without")
                    print(seed, *name, *(f"{100 * x:.1f}" for x in found), flush=True)
                    scores.setdefault(name, []).append(found)
    header = ["tokens", "position", "MEL", "all scenes", "relational pairs", "other scenes"]
    rows = [
        [*name, *map(harness.mean_std, zip(*each, strict=True))] for name, each in scores.items()
    ]
    print(harness.table(header, rows))


if __name__ == "__main__":
    main()
