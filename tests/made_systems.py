"""What tests of the models share: variables, shapes, counts, gradients."""

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


def drawn(model, x, sharpness=1.0):
    """Variables of a model for features x: He-scaled kernels, and nothing that is 0 or 1.

    Near-uniform attention would hide the queries: `sharpness` scales the kernels of both.
    """
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        *_, owner, name = (key.key for key in path)
        if name in ("scale", "var"):
            return np.float32(rng.uniform(0.5, 1.5, leaf.shape))
        if name in ("bias", "mean"):
            return np.float32(0.3 * rng.normal(size=leaf.shape))
        inputs = leaf.shape[:-1]
        if owner == "event_classifier" or leaf.ndim == 3:  # a layer for each event
            inputs = leaf.shape[1:2]
        gain = sharpness if owner in ("query", "key") else 1.0
        return np.float32(gain * rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(inputs)))

    shapes = jax.eval_shape(lambda: model.init(KEY, x, train=False))
    return jax.tree_util.tree_map_with_path(draw, shapes)


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
