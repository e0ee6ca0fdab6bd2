"""The dynamic event graph: scenes by which events sound when (ergl_jax/models/dynamic.py).

    python run.py --config=configs/ergl_dynamic.py:synthetic --workdir=runs/dynamic
    python run.py --config=configs/ergl_dynamic.py:folder --config.data.manifest=my.csv

A stage trains the encoder and the events' activities by the event loss alone; then the scene layer
is fitted to the graphs in closed form. Sources as in configs/ergl.py, and `delays`.
"""

from configs import ergl

SHARES = ("synthetic", "delays")  # whose labels are shares of the clip; others are presences


def get_config(source: str = "tut2018"):
    """The settings of configs/ergl.py, with a finer time step and without time masks."""
    config = ergl.get_config(source).unlock()
    config.model.name = "ergl_dynamic"
    config.model.variant = "relations"
    config.model.pooling = "mean" if source in SHARES else "linear"
    config.model.encoder.time_pools = 3  # 0.08 s at a hop of 0.01 s
    config.data.front_end = "panns_16k"
    config.augment.time_masks = 0  # they would hide events that the labels have
    config.train.trainer = "relations"
    config.train.loss = "events"
    config.stages = (
        {
            "name": "events",
            "set": {"model.variant": "events", "train.trainer": "sgd"},
            "take": {"encoder": "encoder", "activity": "activity"},
        },
    )
    if source in ergl.SMALL:
        config.train.epochs = 30
        config.model.dropout = 0.0
    return config.lock()
