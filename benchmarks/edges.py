"""MEL factorised, as in ergl_jax, against MEL pair by pair, as in eq. 3 and 4.

    python benchmarks/edges.py

Both on tokens (B, n, T, C) of 31 tokens and 64 channels, with the same weights. NCM is the same in
both. Pair by pair, NNM projects, attends and averages for each ordered pair of events, in tensors
(B, n, n, T, C). The clips are split over the devices, as run.py does with two CPU devices if each
gets four clips or more. Edges and gradients are compared before anything is timed. Memory is the
larger of XLA's plan for temporaries and, on CPU, of the growth of the process in a call; programs
that plan for more than --max-gb are not run. The second table compares NCM with
`jax.nn.dot_product_attention`, on a GPU with cuDNN's flash attention in bfloat16.
"""

import statistics

import harness
import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax.kernels.devices import shard_clips
from ergl_jax.models.edges import EdgeLearning, NodeContext

TOLERANCE = 1e-4  # of the largest value


def factorised(params, v):
    return EdgeLearning().apply({"params": params}, v)


def pair_by_pair(params, v):
    """Edges (B, n, n, C): e_ij = GAP(NNM(S_j, S_i))."""
    s = NodeContext().apply({"params": params["ncm"]}, v)
    batch, n, tokens, channels = s.shape
    pairs = (batch, n, n, tokens, channels)
    senders = jnp.broadcast_to(s[:, None], pairs)  # S_j at [b, i, j]
    receivers = jnp.broadcast_to(s[:, :, None], pairs)  # S_i
    # Else XLA sees that each of these repeats one tensor, and projects it once.
    senders, receivers = jax.lax.optimization_barrier((senders, receivers))
    weights = {k: x["kernel"] for k, x in params["nnm"]["_Projections_0"].items()}
    query = senders @ weights["query"]
    key, value = receivers @ weights["key"], receivers @ weights["value"]
    logits = jnp.einsum("bijqc,bijkc->bijqk", query, key) / channels**0.5
    return jnp.einsum("bijqk,bijkc->bijqc", jax.nn.softmax(logits), value).mean(axis=3)


def draw_tokens(batch: int, n: int, options) -> jax.Array:
    return jax.random.normal(jax.random.key(0), (batch, n, options.tokens, options.channels))


def passes(function, weights):
    """The function, and its gradient by both arguments under a weighted mean."""
    yield "forward", function
    loss = lambda params, x: (function(params, x) * weights).mean()  # noqa: E731
    yield "forward and backward", jax.grad(loss, argnums=(0, 1))


def check_equal(what: str, ours, other, tolerance: float) -> None:
    """SystemExit if two trees of arrays differ by more than `tolerance` of the largest value."""
    ours, other = jax.tree.leaves(ours), jax.tree.leaves(other)
    pairs = [[np.asarray(x, np.float32) for x in pair] for pair in zip(ours, other, strict=True)]
    error = max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)
    print(f"{what}: differ by {error:.1e} of the largest value")
    if not error < tolerance:
        raise SystemExit("the two functions differ: nothing is timed")


def mel_rows(batch: int, n: int, options) -> list[list]:
    v = draw_tokens(batch, n, options)
    params = jax.jit(EdgeLearning().init)(jax.random.key(1), v)["params"]
    weights = jax.random.normal(jax.random.key(2), (batch, n, n, options.channels))
    (ours, shardings), (naive, _) = (
        shard_clips(function, 2) for function in (factorised, pair_by_pair)
    )
    params, v = jax.device_put((params, v), shardings)
    rows = []
    for (what, a), (_, b) in zip(passes(ours, weights), passes(naive, weights), strict=True):
        compiled = [jax.jit(each).lower(params, v).compile() for each in (a, b)]
        planned = [harness.planned_bytes(each) / 1e9 for each in compiled]
        calls = {
            number: lambda each=each: jax.block_until_ready(each(params, v))
            for number, each in enumerate(compiled)
            if planned[number] <= options.max_gb
        }
        if len(calls) == 2:
            found = [each(params, v) for each in compiled]
            check_equal(f"{batch} x {n} events, {what}", *found, TOLERANCE)
        times = harness.time_in_turn(calls, options.rounds)
        ms = {number: f"{1000 * statistics.median(each):.1f} ms" for number, each in times.items()}
        mb = {k: harness.needed_bytes(compiled[k], calls[k]) / 1e6 for k in calls}
        row = [f"{batch} x {n}", what]
        row += [ms.get(number, "not run") for number in range(2)]
        row.append(harness.ratio(times[1], times[0]) if len(times) == 2 else "")
        row += [
            f"{mb[number]:.1f} MB" if number in mb else f"{1000 * planned[number]:.1f} MB planned"
            for number in range(2)
        ]
        rows.append([*row, f"{mb[1] / mb[0]:.1f}" if len(mb) == 2 else ""])
    return rows


def attention_rows(batch: int, n: int, options) -> list[list]:
    gpu = jax.default_backend() == "gpu"
    dtype = jnp.bfloat16 if gpu else jnp.float32
    v = draw_tokens(batch, n, options).astype(dtype)
    params = jax.jit(NodeContext().init)(jax.random.key(1), v)["params"]
    weights = jax.random.normal(jax.random.key(2), v.shape)

    def ours(params, v):
        return NodeContext(dtype).apply({"params": params}, v)

    def library(params, v):
        x = v.reshape(batch, -1, v.shape[-1])
        kernels = {k: w["kernel"].astype(dtype) for k, w in params["_Projections_0"].items()}
        projected = [(x @ kernels[name])[:, :, None] for name in ("query", "key", "value")]
        implementation = "cudnn" if gpu else "xla"
        return jax.nn.dot_product_attention(*projected, implementation=implementation).reshape(
            v.shape
        )

    rows = []
    for (what, a), (_, b) in zip(passes(ours, weights), passes(library, weights), strict=True):
        compiled = [jax.jit(each).lower(params, v).compile() for each in (a, b)]
        found = [each(params, v) for each in compiled]
        check_equal(f"NCM, {batch} x {n} events, {what}", *found, 3e-2 if gpu else TOLERANCE)
        calls = {k: lambda f=f: jax.block_until_ready(f(params, v)) for k, f in enumerate(compiled)}
        times = harness.time_in_turn(calls, options.rounds)
        ms = [f"{1000 * statistics.median(each):.1f} ms" for each in times.values()]
        rows.append([f"{batch} x {n}", what, *ms, harness.ratio(times[1], times[0])])
    return rows


def size(text: str) -> tuple[int, int]:
    """Clips and events of "8x25"."""
    batch, _, n = text.partition("x")
    return harness.positive(batch), harness.positive(n)


def main() -> None:
    parser = harness.parser(__doc__, rounds=7)
    add = parser.add_argument
    sizes = [(8, 10), (8, 25), (2, 100), (1, 400)]
    add("--sizes", nargs="+", type=size, default=sizes, help="clips x events, as 8x10")
    add("--attention-sizes", nargs="*", type=size, default=[(8, 25), (2, 100)])
    add("--tokens", type=harness.positive, default=31)
    add("--channels", type=harness.positive, default=64)
    add("--max-gb", type=float, default=12)
    add("--cpu-devices", type=harness.positive, default=1)
    options = parser.parse_args()
    if any(batch % options.cpu_devices for batch, _ in options.sizes):
        parser.error("the clips of --sizes must be divisible by --cpu-devices")
    harness.use_cpu(options.cpu_devices)
    header = ["clips x events", ""]
    for what in ("time", "memory"):
        header += [f"{what}: factorised", "pair by pair", "ratio"]
    rows = [row for each in options.sizes for row in mel_rows(*each, options)]
    print("\n" + harness.table(header, rows) + "\n")
    if options.attention_sizes:
        header = ["NCM, clips x events", "", "ours", "dot_product_attention", "ratio"]
        rows = [row for each in options.attention_sizes for row in attention_rows(*each, options)]
        print("\n" + harness.table(header, rows))


if __name__ == "__main__":
    harness.start(main)
