"""Multi-layer temporal features and a linear support vector machine (75.3 % on TUT 2018).

    python run.py --config=configs/mltf.py
    python run.py --config=configs/mltf.py:synthetic

A stage trains the network on segments; then the machine is fitted to its features of whole clips.
See ergl_jax/baselines/mltf.py; the network is our interpretation.
"""

from configs import ergl

NETWORK = ("fc", *(f"{layer}_{i}" for layer in ("Conv", "BatchNormReLU") for i in range(6)))


def get_config(argument: str = "tut2018"):
    """Its own features with either recipe, since the system is made of segments."""
    config, native = ergl.for_system(argument, "mltf", divisor=16)
    config.data.front_end = "mltf"
    if native:
        config.optimizer.weight_decay = 0.0
        config.train.epochs = 100
    config.augment.roll = False  # it would shift the segments, as would a crop
    config.stages = (
        {
            "name": "network",
            "set": {
                "model.variant": "cnn",
                "train.trainer": "sgd",
            },
            "take": {layer: layer for layer in NETWORK},
        },
    )
    config.model.variant = "svm"
    config.train.trainer = "svm"
    return config.lock()
