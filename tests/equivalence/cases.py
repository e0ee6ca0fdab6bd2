"""What is compared at small width, and our side of it.

A case is one module with its inputs. Both sides return one flat dict of arrays: `evaluation/...`
and `training/...` (all that the module computes), `gradients/...` (by every parameter, of the
training loss), `statistics/...` (BatchNorm's, after that step), `adamw/...` (parameters after five
steps). Weights and inputs are drawn by a generator whose stream NumPy keeps frozen, so that the
stored reference needs no copy of them.
"""

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from configs import ergl as paper
from ergl_jax.models import ERGL, Encoder, Output
from ergl_jax.models.edges import NodeContext, NodePairs
from ergl_jax.models.gated_gcn import GatedGCNLayer
from ergl_jax.models.losses import losses
from ergl_jax.models.panns import ConvBlock
from ergl_jax.training import optimizer
from ergl_jax.training.step import AXIS, Trainer, TrainState, replicate, stack, unreplicate

CLIPS, FRAMES, MELS = 4, 64, 32
SCENES, EVENTS, TOKENS, CHANNELS = 5, 4, 3, 6
STEPS = 5  # of AdamW


def draw(name: str, *shape: int) -> np.ndarray:
    """Uniform with mean 0 and variance 1, float32; the same for the same name."""
    generator = np.random.RandomState(zlib.crc32(name.encode()))
    return np.float32(generator.uniform(-(3**0.5), 3**0.5, shape))


def spectrogram(name: str, clips=CLIPS, frames=FRAMES, mels=MELS) -> np.ndarray:
    """(B, F, M) in dB, about as recordings have it."""
    return -40 + 15 * draw(name, clips, frames, mels)


def waveforms(sample_rate: int, seconds: float) -> dict[str, np.ndarray]:
    """Signals of (samples,), full scale 1: noise, noise in bursts, and tones in noise."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.float32(0.1) * draw("noise", len(time))
    bursts = np.where(np.floor(8 * time) % 2 == 0, 1.0, 0.01)
    tones = sum(0.03 * np.sin(2 * np.pi * pitch * time) for pitch in (110, 1000, 5300))
    signals = {"noise": noise, "bursts": bursts * noise, "tones": tones + 0.2 * noise}
    return {name: np.float32(x) for name, x in signals.items()}


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """He-scaled kernels; biases, scales and statistics that are nowhere 0 or 1."""
    *owners, leaf = name.split("/")
    x = draw(name, *shape)
    decibels = leaf in ("mean", "var") and owners[-1:] == ["BatchNorm_0"]  # the encoder's input
    if leaf == "mean":
        return -40 + 3 * x if decibels else 0.3 * x
    if leaf == "var":
        return (225 if decibels else 1) * (1 + 0.25 * x)
    if leaf == "scale":
        return 1 + 0.25 * x
    if leaf == "bias":
        return 0.8 + 0.2 * x  # positive, so that hardly a ReLU is dead
    if "event_classifier" in owners:
        return np.float32(np.sqrt(2 / shape[-1])) * x
    # The n layers of the events are one kernel (n, D, C).
    inputs = (1,) if len(shape) == 3 else tuple(range(len(shape) - 1))
    gain = 2.0 if owners[-1] in ("query", "key") else 1.0  # far from uniform attention
    x -= x.mean(axis=inputs, keepdims=True)  # features are positive: no ReLU hears their mean alone
    return np.float32(gain * np.sqrt(2 / np.prod([shape[k] for k in inputs]))) * x


@dataclass(frozen=True, eq=False)
class Case:
    """A module with inputs, and what of reference.py says the same."""

    name: str
    module: nn.Module
    inputs: tuple[np.ndarray, ...]
    reference: str  # a function of reference.py
    options: dict = field(default_factory=dict)  # its keyword arguments
    outputs: tuple[str, ...] = ("output",)  # names of what the module returns
    modes: bool = True  # training differs from evaluation
    targets: dict[str, np.ndarray] | None = None  # the real losses; else a weighted sum of outputs

    def variables(self) -> dict[str, np.ndarray]:
        """Weights and running statistics by name, without Flax's collections."""
        shapes = jax.eval_shape(self._init)
        flat = {k: v for tree in shapes.values() for k, v in flatten_dict(tree, sep="/").items()}
        return {name: weights(name, leaf.shape) for name, leaf in flat.items()}

    def collections(self, variables: dict[str, np.ndarray]) -> dict:
        """The same as Flax keeps them: params and batch_stats, nested."""
        shapes = jax.eval_shape(self._init)
        return {
            collection: unflatten_dict(
                {name: variables[name] for name in flatten_dict(tree, sep="/")}, sep="/"
            )
            for collection, tree in {"batch_stats": {}, **shapes}.items()
        }

    def _init(self):
        mode = {"train": False} if self.modes else {}
        return self.module.init(jax.random.key(0), *self.inputs, **mode)

    def _apply(self, params, batch_stats, train: bool):
        """Everything computed, by name, and the new statistics."""
        returned, changed = self.module.apply(
            {"params": params, "batch_stats": batch_stats},
            *self.inputs,
            **({"train": train} if self.modes else {}),
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: isinstance(module, Encoder),
        )
        if isinstance(returned, Output):
            outputs = {
                "encoder": changed["intermediates"]["encoder"]["__call__"][0],
                **vars(returned.graph),
                "event_logits": returned.event_logits,
                "scene_logits": returned.scene_logits,
            }
            outputs |= losses(returned, **self.targets)
        else:
            returned = returned if isinstance(returned, tuple) else (returned,)
            outputs = dict(zip(self.outputs, returned, strict=True))
        return outputs, changed.get("batch_stats", {})

    def objective(self, outputs: dict, asarray: Callable = np.asarray):
        """The loss, or a weighted sum of all outputs; `asarray` makes weights a tensor."""
        if self.targets is not None:
            return outputs["loss"]
        return sum((x * asarray(draw(k, *x.shape))).sum() for k, x in outputs.items())

    @functools.cached_property
    def _compiled(self):
        def both(params, batch_stats):
            def loss(params):
                outputs, changed = self._apply(params, batch_stats, True)
                return self.objective(outputs), (outputs, changed)

            found = {"evaluation": self._apply(params, batch_stats, False)[0]}
            grads, (outputs, changed) = jax.grad(loss, has_aux=True)(params)
            if self.modes:
                found |= {"training": outputs, "statistics": changed}
            return found | {"gradients": grads}

        return jax.jit(both)

    def evaluate(self, variables: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """What the module computes in evaluation mode, by name."""
        return jax.jit(lambda tree: self._apply(**tree, train=False)[0])(
            self.collections(variables)
        )

    def ours(self, variables: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Our side, without AdamW."""
        tree = self.collections(self.variables() if variables is None else variables)
        found = self._compiled(tree["params"], tree["batch_stats"])
        return {k: np.asarray(v) for k, v in flatten_dict(found, sep="/").items()}


# The modules


def encoder_case(architecture: str, divisor: int) -> Case:
    # 128 frames: BatchNorm over less than that would be ill-conditioned in Cnn14's last block.
    return Case(
        f"encoder {architecture}, width divided by {divisor}",
        Encoder(architecture, divisor, dropout=0.0),
        (spectrogram("log-mel", frames=128),),
        "encoder",
        {"architecture": architecture},
    )


def conv_block_case(kernel: int, convolutions: int, pool: bool) -> Case:
    return Case(
        f"ConvBlock {convolutions} of {kernel} x {kernel}{', pool' if pool else ''}",
        ConvBlock(6, kernel, convolutions, pool),
        (draw("image", CLIPS, 9, 8, 3),),  # an odd last frame, which the pool drops
        "conv_block",
        {"convolutions": convolutions, "pool": pool},
    )


def gcn_case(gate: str) -> Case:
    return Case(
        f"gated GCN, {gate}",
        GatedGCNLayer(gate),
        (draw("h", CLIPS, EVENTS, CHANNELS), draw("e", CLIPS, EVENTS, EVENTS, CHANNELS)),
        "gated_gcn",
        {"gate": gate},
        outputs=("nodes", "edges", "gates"),
    )


def edge_case(name: str, module: nn.Module, reference: str) -> Case:
    x = draw("tokens", CLIPS, EVENTS, TOKENS, CHANNELS)
    return Case(name, module, (x,), reference, modes=False)


def ergl_case(tokens: str, mel: bool, gate: str) -> Case:
    fields = {"tokens": tokens, "mel": mel, "gate": gate, "gcn_layers": 2}
    return Case(
        f"ERGL {tokens}, {'MEL' if mel else 'no MEL'}, {gate}",
        ERGL(
            num_scenes=SCENES,
            num_events=EVENTS,
            encoder=Encoder("cnn6", 32, dropout=0.0),
            channels=CHANNELS,
            dropout=0.0,
            **fields,
        ),
        (spectrogram("log-mel"),),
        "ergl",
        {"architecture": "cnn6", **fields},
        targets=targets("targets"),
    )


def targets(name: str) -> dict[str, np.ndarray]:
    """Scenes as mixed-up target probabilities (B, scenes), and soft event labels (B, n)."""
    scene = 2 + draw(f"{name}/scene", CLIPS, SCENES)
    return {
        "scene": scene / scene.sum(axis=1, keepdims=True),
        "events": 0.5 + 0.25 * draw(f"{name}/events", CLIPS, EVENTS),
    }


ERGL_CASES = [
    ergl_case(tokens, mel, gate)
    for tokens, mel, gate in [
        ("frame", True, "sigmoid"),  # the paper's, the default
        ("frame", True, "softmax"),
        ("frame", False, "sigmoid"),
        ("clip", True, "sigmoid"),
        ("clip", False, "softmax"),
    ]
]
CASES = [
    conv_block_case(3, 2, pool=True),
    conv_block_case(3, 2, pool=False),
    conv_block_case(5, 1, pool=True),
    encoder_case("cnn14", 32),
    encoder_case("cnn10", 32),
    encoder_case("cnn6", 32),
    edge_case("NCM", NodeContext(), "ncm"),
    edge_case("NNM and GAP", NodePairs(), "nnm_gap"),
    gcn_case("sigmoid"),
    gcn_case("softmax"),
    *ERGL_CASES,
]


# AdamW


def batches() -> list[dict[str, np.ndarray]]:
    """The batch of each step: log_mel, scene as a class, events."""
    return [
        {
            "log_mel": spectrogram(f"log-mel {step}"),
            "scene": (np.arange(CLIPS) + step) % SCENES,
            "events": targets(f"step {step}")["events"],
        }
        for step in range(STEPS)
    ]


def five_steps(case: Case) -> dict[str, np.ndarray]:
    """An ERGL after five real training steps: parameters, statistics, and each step's loss."""
    settings = paper.get_config().optimizer
    adamw = optimizer.adamw(settings, steps_per_epoch=STEPS, epochs=1)
    trainer = Trainer(
        case.module.clone(axis_name=AXIS, encoder=case.module.encoder.clone(axis_name=AXIS)),
        adamw,
        lambda key, batch: batch,
        num_scenes=SCENES,
        seed=0,
    )
    tree = jax.tree.map(jnp.asarray, case.collections(case.variables()))
    state = replicate(
        TrainState(step=jnp.zeros((), jnp.int32), opt_state=adamw.init(tree["params"]), **tree)
    )
    each = []
    for batch in batches():
        state, metrics = trainer.step(state, batch)
        each.append(metrics)
    state = unreplicate(state)
    found = flatten_dict({"adamw": state.params, "adamw statistics": state.batch_stats}, sep="/")
    return {**found, "adamw loss/loss": stack(each)["loss"]}
