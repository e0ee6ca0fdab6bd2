"""Events given the scene (66.39 % on TUT 2018).

    python run.py --config=configs/conditional.py
    python run.py --config=configs/conditional.py:synthetic

See ergl_jax/baselines/conditional.py; our interpretation.
"""

from configs import ergl


def get_config(argument: str = "tut2018"):
    """The recipe of configs/mtl.py, whose network it extends."""
    config, native = ergl.for_system(argument, "conditional", divisor=4)
    config.train.loss = "conditional"
    if native:
        config.data.front_end = "mtl"
        config.data.num_events = 527
        config.optimizer.learning_rate = 2e-4
        config.optimizer.weight_decay = 0.0
    return config.lock()
