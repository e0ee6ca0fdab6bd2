"""The encoders' convolution, BatchNorm with ReLU and pool compared with Flax's.

    python benchmarks/layers.py

Times an encoder forward and backward, with each layer by itself replaced, in turn in one run.
Prints a Markdown table of medians and their ratio.
"""

import statistics
from unittest import mock

import flax.linen as nn
import harness
import jax
import jax.numpy as jnp

from ergl_jax.kernels import batch_norm
from ergl_jax.kernels.pool import average_pool_2x2
from ergl_jax.models import layers, panns


class FlaxConv(nn.Module):
    """Flax's convolution, with JAX's gradients."""

    channels: int
    side: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        sides = (self.side, self.side)
        conv = nn.Conv(self.channels, sides, use_bias=False, dtype=self.dtype)
        nn.share_scope(self, conv)  # its kernel is where Conv has its own
        return conv(x)


class FlaxBatchNormReLU(nn.Module):
    """Flax's BatchNorm, ReLU and pool, with JAX's gradients."""

    axis_name: str | None = None
    dtype: jnp.dtype = jnp.float32
    pool: bool = False

    @nn.compact
    def __call__(self, x, *, train, convolved=None):
        x = nn.relu(
            nn.BatchNorm(
                use_running_average=not train,
                momentum=layers.BATCH_NORM_MOMENTUM,
                epsilon=batch_norm.EPSILON,
                axis_name=self.axis_name,
                dtype=self.dtype,
            )(x)
        )
        return self.pooled(x) if self.pool else x

    def pooled(self, x):
        return nn.avg_pool(x, (2, 2), (2, 2))


class OurPool(FlaxBatchNormReLU):
    """Flax's BatchNorm and ReLU, then the project's pool."""

    def pooled(self, x):
        return average_pool_2x2(x)


FLAX = {"Conv": FlaxConv, "BatchNormReLU": FlaxBatchNormReLU}
OURS = {name: getattr(layers, name) for name in FLAX}


def compiled(architecture: str, divisor: int, shape: tuple[int, int, int], changed: dict):
    """A call that computes an encoder's gradients, with some layers replaced."""
    with mock.patch.multiple(layers, **changed):
        encoder = panns.Encoder(architecture, divisor, dropout=0.0)
        x = jax.random.normal(jax.random.key(0), shape)
        variables = encoder.init(jax.random.key(1), x[:1], train=False)

        def loss(params):
            out, _ = encoder.apply(
                variables | {"params": params}, x, train=True, mutable=["batch_stats"]
            )
            return jnp.square(out).mean()

        gradients = jax.jit(jax.grad(loss)).lower(variables["params"]).compile()
    return lambda: jax.block_until_ready(gradients(variables["params"]))


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--repeats", type=harness.positive, default=7)
    options = parser.parse_args()
    harness.use_cpu(1)
    variants = {
        "Flax": FLAX,
        "our convolution": FLAX | {"Conv": OURS["Conv"]},
        "our BatchNorm with ReLU and pool": FLAX | {"BatchNormReLU": OURS["BatchNormReLU"]},
        "our pool": FLAX | {"BatchNormReLU": OurPool},
        "all ours": OURS,
    }
    rows = []
    for architecture, divisor, shape in (
        ("cnn10", 8, (16, 501, 64)),
        ("cnn10", 4, (8, 501, 64)),
        ("cnn14", 1, (2, 1001, 64)),
    ):
        calls = {name: compiled(architecture, divisor, shape, v) for name, v in variants.items()}
        times = harness.time_in_turn(calls, options.repeats)
        for name, each in times.items():
            what = f"{architecture} / {divisor}, {' x '.join(map(str, shape))}"
            median = f"{1000 * statistics.median(each):.0f} ms"
            rows.append([what, name, median, harness.ratio(times["Flax"], each)])
    print(harness.table(["encoder, input", "layers", "forward and backward", "speed-up"], rows))


if __name__ == "__main__":
    harness.start(main)
