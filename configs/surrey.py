"""The convolutional network of Surrey for DCASE 2018 (68.0 % on TUT 2018).

    python run.py --config=configs/surrey.py
    python run.py --config=configs/surrey.py:synthetic

See ergl_jax/baselines/surrey.py.
"""

from configs import ergl


def get_config(argument: str = "tut2018"):
    """Adam, 5000 steps of 64 clips: 76 epochs of the 4285 clips without those for validation."""
    config, native = ergl.for_system(argument, "surrey")
    if native:
        config.data.front_end = "kong"
        config.optimizer.weight_decay = 0.0
        config.train.epochs = 76
    return config.lock()
