"""MEL factorised, as ergl_jax computes it, beside MEL pair by pair, as eq. 3 and 4 stand.

    python benchmarks/edges.py

Both on tokens (B, n, T, C) of 31 tokens and 64 channels, by the same weights. NCM is the same in
both; pair by pair, NNM projects, attends and averages for each ordered pair, in tensors
(B, n, n, T, C). Edges and gradients are compared first. Memory is the larger of what XLA plans for
temporaries and, on CPU, of what the process grows by in a call. Prints a Markdown table.
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


def rows_of(batch: int, n: int, options) -> list[list]:
    v = jax.random.normal(jax.random.key(0), (batch, n, options.tokens, options.channels))
    params = jax.jit(EdgeLearning().init)(jax.random.key(1), v)["params"]
    weights = jax.random.normal(jax.random.key(2), (batch, n, n, options.channels))

    def with_gradients(edges):
        return jax.grad(lambda params, v: (edges(params, v) * weights).mean(), argnums=(0, 1))

    rows = []
    for what, wrap in (("forward", lambda edges: edges), ("forward and backward", with_gradients)):
        compiled = {
            name: jax.jit(wrap(edges)).lower(params, v).compile()
            for name, edges in {"factorised": factorised, "pair by pair": pair_by_pair}.items()
        }
        ours, naive = (jax.tree.leaves(each(params, v)) for each in compiled.values())
        errors = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, naive, strict=True)]
        print(f"{batch} x {n} events, {what}: differ by {max(errors):.1e} of the largest value")
        if not max(errors) < TOLERANCE:
            raise SystemExit("these are two different functions: nothing is timed")
        calls = {
            name: lambda each=each: jax.block_until_ready(each(params, v))
            for name, each in compiled.items()
        }
        times = harness.in_turn(calls, options.rounds)
        ms = [1000 * statistics.median(each) for each in times.values()]
        mb = [harness.memory(compiled[name], calls[name]) / 1e6 for name in calls]
        row = [f"{batch} x {n}", what]
        for (a, b), unit in ((ms, "ms"), (mb, "MB")):
            row += [f"{a:.1f} {unit}", f"{b:.1f} {unit}", f"{b / a:.1f}"]
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sizes", nargs="+", default=["8x25", "2x100"], help="clips x events")
    add("--tokens", type=int, default=31)
    add("--channels", type=int, default=64)
    add("--rounds", type=int, default=7)
    options = parser.parse_args()
    sizes = [map(int, size.split("x")) for size in options.sizes]
    rows = [row for batch, n in sizes for row in rows_of(batch, n, options)]
    header = ["clips x events", ""]
    for what in ("time", "memory"):
        header += [f"{what}: factorised", "pair by pair", "ratio"]
    print("\n" + harness.table(header, rows))


if __name__ == "__main__":
    main()
