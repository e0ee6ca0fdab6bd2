"""The baseline of DCASE 2018, task 1 (59.7 % on TUT 2018).

    python run.py --config=configs/dcase2018.py
    python run.py --config=configs/dcase2018.py:synthetic

See ergl_jax/baselines/dcase2018.py.
"""

from configs import ergl


def get_config(argument: str = "tut2018"):
    """40 mel bands of 500 frames; Adam, 200 epochs; validation selects one after the 50th."""
    config, native = ergl.for_system(argument, "dcase2018", divisor=1)
    if native:
        config.data.front_end = "dcase2018"
        config.optimizer.weight_decay = 0.0
        config.train.batch_size = 16
        config.train.epochs = 200
        config.train.select_from = 51
    return config.lock()
