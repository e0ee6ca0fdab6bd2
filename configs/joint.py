"""Scenes and events by one layer and one loss (52.35 % on TUT 2018).

    python run.py --config=configs/joint.py
    python run.py --config=configs/joint.py:synthetic

See ergl_jax/baselines/joint.py; our interpretation.
"""

from configs import ergl


def get_config(argument: str = "tut2018"):
    """All 527 events; Adam and 100 epochs."""
    config, native = ergl.for_system(argument, "joint", divisor=2)
    config.train.loss = "joint"
    if native:
        config.data.front_end = "kong"
        config.data.num_events = 527
        config.optimizer.weight_decay = 0.0
        config.train.epochs = 100
    return config.lock()
