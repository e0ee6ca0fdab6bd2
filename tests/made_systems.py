"""What tests of the compared systems share: shapes, counts, gradients."""

import jax
import jax.numpy as jnp
import numpy as np

# JAX's other generator: its draws compile many times faster.
KEY = jax.random.key(0, impl="rbg")


def features(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def init(model, *shape):
    """The variables of a model for features (B, F, M)."""
    return jax.jit(lambda: model.init(KEY, jnp.zeros(shape), train=False))()


def apply(model, variables, x):
    """The Output of evaluation."""
    return jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)


def count(model, *shape):
    """How many parameters a model has for features (B, F, M), by its shapes alone."""
    shapes = jax.eval_shape(lambda: model.init(KEY, jnp.zeros(shape), train=False))
    return size(shapes["params"])


def size(tree):
    """How many numbers a tree of arrays, or of their shapes, has."""
    return sum(x.size for x in jax.tree.leaves(tree))


def output_shapes(model, *shape):
    """The Output for features (B, F, M), of shapes."""
    x = jnp.zeros(shape)
    return jax.eval_shape(lambda: model.init_with_output(KEY, x, train=False))[0]


def trained_once(model, variables, x, scene):
    """Cross entropy's gradient by the parameters, and the statistics after, of one batch."""

    @jax.jit
    def run(variables, x):
        def loss(params):
            output, updated = model.apply(
                {**variables, "params": params},
                x,
                train=True,
                rngs={"dropout": KEY},
                mutable=["batch_stats"],
            )
            log_p = jax.nn.log_softmax(output.scene_logits)
            return -jnp.take_along_axis(log_p, scene[:, None], 1).mean(), updated["batch_stats"]

        return jax.grad(loss, has_aux=True)(variables["params"])

    return run(variables, x)


def leaves(tree):
    """Path, as "a/b/kernel", and array, of each leaf."""
    return {
        "/".join(key.key for key in path): np.asarray(x)
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }
