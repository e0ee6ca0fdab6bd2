"""A convolutional network with attention over its map (72.6 % on TUT 2018).

    python run.py --config=configs/abcnn.py
    python run.py --config=configs/abcnn.py:synthetic

See ergl_jax/baselines/abcnn.py.
"""

from configs import ergl


def get_config(argument: str = "tut2018"):
    """Adam, 15000 steps of 16 clips: 56 epochs of the 4285 clips without those for validation."""
    config, native = ergl.for_system(argument, "abcnn")
    config.train.loss = "nll"
    if native:
        config.data.front_end = "kong_20hz"
        config.optimizer.weight_decay = 0.0
        config.train.batch_size = 16
        config.train.epochs = 56
    return config.lock()
