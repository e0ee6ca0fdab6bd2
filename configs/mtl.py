"""Scenes and events as two tasks of one network (61.69 % on TUT 2018).

    python run.py --config=configs/mtl.py
    python run.py --config=configs/mtl.py:synthetic

See ergl_jax/baselines/mtl.py.
"""

from configs import ergl


def get_config(argument: str = "tut2018"):
    """All 527 events; Adam at 2e-4, 64 clips, 300 epochs."""
    config, native = ergl.for_system(argument, "mtl", divisor=4)
    config.train.loss = "bce"
    if native:
        config.data.front_end = "mtl"
        config.data.num_events = 527
        config.optimizer.learning_rate = 2e-4
        config.optimizer.weight_decay = 0.0
    return config.lock()
