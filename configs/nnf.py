"""Six networks on spectrograms with and without a nearest-neighbour filter (69.3 % on TUT 2018).

    python run.py --config=configs/nnf.py
    python run.py --config=configs/nnf.py:synthetic

Each member is a stage; then validation selects their weights. See ergl_jax/baselines/nnf.py; our
interpretation.
"""

from configs import ergl

MEMBERS = ("mel", "mel", "filtered", "filtered", "both", "both")


def get_config(argument: str = "tut2018"):
    """Two members of each kind, with different seeds, then the selection among them."""
    config, native = ergl.for_system(argument, "nnf")
    if native:
        config.data.front_end = "mel128"
        config.optimizer.weight_decay = 0.0
        config.train.epochs = 100
    config.stages = tuple(
        {
            "name": f"member{number}",
            "set": {"model.variant": variant, "train.trainer": "sgd"},
            "take": {f"member{number}": ""},
        }
        for number, variant in enumerate(MEMBERS)
    )
    config.model.variant = "ensemble"
    config.train.trainer = "ensemble"
    return config.lock()
