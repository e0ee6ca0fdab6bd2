"""MEL factorised, as ergl_jax computes it, beside MEL pair by pair, as eq. 3 and 4 stand.

    python benchmarks/edges.py

Both on tokens (B, n, T, C) of 31 tokens and 64 channels, by the same weights. NCM is the same in
both; pair by pair, NNM projects, attends and averages for each ordered pair, in tensors
(B, n, n, T, C). The clips are shared out to the devices, as run.py does with two CPU devices where
each gets four or more. Edges and gradients are compared first. Memory is the larger of what XLA
plans for temporaries and, on CPU, of what the process grows by in a call; what plans for more than
--most-gb is not run. The second table sets NCM beside `jax.nn.dot_product_attention`, on a GPU
cuDNN's flash attention in bfloat16. Prints Markdown tables.
"""

import argparse
import statistics

import harness
import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax.models.edges import EdgeLearning, NodeContext

TOLERANCE = 1e-4  # of the largest value


def factorised(params, v):
    return EdgeLearning().apply({"params": params}, v)


def pair_by_pair(params, v):
    """Edges (B, n, n, C): e_ij = GAP(NNM(S_j, S_i))."""
    s = NodeContext().apply({"params": params["ncm"]}, v)
    batch, n, tokens, channels = s.shape
    pairs = (batch, n, n, tokens, channels)
    asking = jnp.broadcast_to(s[:, None], pairs)  # at [b, i, j] what j has
    answering = jnp.broadcast_to(s[:, :, None], pairs)  # and what i has
    # Or XLA sees that each of these is one tensor many times, and projects it once.
    asking, answering = jax.lax.optimization_barrier((asking, answering))
    weights = {k: x["kernel"] for k, x in params["nnm"]["_Projections_0"].items()}
    query = asking @ weights["query"]
    key, value = answering @ weights["key"], answering @ weights["value"]
    logits = jnp.einsum("bijqc,bijkc->bijqk", query, key) / channels**0.5
    return jnp.einsum("bijqk,bijkc->bijqc", jax.nn.softmax(logits), value).mean(axis=3)


def tokens(batch: int, n: int, options) -> jax.Array:
    return jax.random.normal(jax.random.key(0), (batch, n, options.tokens, options.channels))


def passes(function, weights):
    """The function itself, and its gradient by both arguments under a weighted mean."""
    yield "forward", function
    loss = lambda params, x: (function(params, x) * weights).mean()  # noqa: E731
    yield "forward and backward", jax.grad(loss, argnums=(0, 1))


def compare(what: str, ours, other, tolerance: float) -> None:
    """SystemExit where two trees of arrays differ by more than `tolerance` of the largest value."""
    ours, other = jax.tree.leaves(ours), jax.tree.leaves(other)
    pairs = [[np.asarray(x, np.float32) for x in pair] for pair in zip(ours, other, strict=True)]
    error = max(np.abs(a - b).max() / np.abs(b).max() for a, b in pairs)
    print(f"{what}: differ by {error:.1e} of the largest value")
    if not error < tolerance:
        raise SystemExit("these are two different functions: nothing is timed")


def rows_of(batch: int, n: int, options) -> list[list]:
    v = tokens(batch, n, options)
    params = jax.jit(EdgeLearning().init)(jax.random.key(1), v)["params"]
    weights = jax.random.normal(jax.random.key(2), (batch, n, n, options.channels))
    rows = []
    (ours, where), (naive, _) = (harness.shared_out(each, 2) for each in (factorised, pair_by_pair))
    params, v = jax.device_put((params, v), where)
    both = zip(passes(ours, weights), passes(naive, weights), strict=True)
    for (what, a), (_, b) in both:
        compiled = [jax.jit(each).lower(params, v).compile() for each in (a, b)]
        planned = [harness.planned(each) / 1e9 for each in compiled]
        calls = {
            number: lambda each=each: jax.block_until_ready(each(params, v))
            for number, each in enumerate(compiled)
            if planned[number] <= options.most_gb
        }
        if len(calls) == 2:
            found = [each(params, v) for each in compiled]
            compare(f"{batch} x {n} events, {what}", *found, TOLERANCE)
        times = harness.in_turn(calls, options.rounds)
        ms = {number: f"{1000 * statistics.median(each):.1f} ms" for number, each in times.items()}
        mb = {number: harness.memory(compiled[number], calls[number]) / 1e6 for number in calls}
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
    v = tokens(batch, n, options).astype(dtype)
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
        compare(f"NCM, {batch} x {n} events, {what}", *found, 3e-2 if gpu else TOLERANCE)
        calls = {k: lambda f=f: jax.block_until_ready(f(params, v)) for k, f in enumerate(compiled)}
        times = harness.in_turn(calls, options.rounds)
        ms = [f"{1000 * statistics.median(each):.1f} ms" for each in times.values()]
        rows.append([f"{batch} x {n}", what, *ms, harness.ratio(times[1], times[0])])
    return rows


def size(name: str) -> tuple[int, int]:
    """Clips and events of "8x25"."""
    batch, n = name.split("x")
    return int(batch), int(n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    sizes = ["8x10", "8x25", "2x100", "1x400"]
    add("--sizes", nargs="+", default=sizes, help="clips x events")
    add("--attention-sizes", nargs="*", default=["8x25", "2x100"], help="of the second table")
    add("--tokens", type=int, default=31)
    add("--channels", type=int, default=64)
    add("--most-gb", type=float, default=12)
    add("--rounds", type=int, default=7)
    add("--cpu-devices", type=int, default=1, help="that JAX makes of the CPU")
    options = parser.parse_args()
    if any(batch % options.cpu_devices for batch, _ in map(size, options.sizes)):
        parser.error("the clips of --sizes must divide by --cpu-devices")
    harness.use_cpu_as_training_does(options.cpu_devices)

    def each(names: list[str], rows_of) -> list[list]:
        return [row for batch, n in map(size, names) for row in rows_of(batch, n, options)]

    header = ["clips x events", ""]
    for what in ("time", "memory"):
        header += [f"{what}: factorised", "pair by pair", "ratio"]
    print("\n" + harness.table(header, each(options.sizes, rows_of)) + "\n")
    if options.attention_sizes:
        header = ["NCM, clips x events", "", "ours", "dot_product_attention", "ratio"]
        print("\n" + harness.table(header, each(options.attention_sizes, attention_rows)))


if __name__ == "__main__":
    main()
