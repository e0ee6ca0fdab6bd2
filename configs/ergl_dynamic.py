"""The dynamic event graph: scenes from when each event sounds (ergl_jax/models/dynamic.py).

    python run.py --config=configs/ergl_dynamic.py:synthetic --workdir=runs/dynamic
    python run.py --config=configs/ergl_dynamic.py:folder --config.data.manifest=my.csv \\
        --config.data.num_events=5
    python data_prep/mix_soundscapes.py --labels=share --recordings=ESC-10 \\
        --out=data/soundscapes_shares --clips_per_scene 40
    python run.py --config=configs/ergl_dynamic.py:soundscapes
    python run.py --config=configs/ergl_dynamic.py:delays --config.train.loss=frames \\
        --config.data.annotations=truth        the times of events as labels (docs/training.md)

A stage trains the encoder and the events' activities by the event loss alone; then the scene layer
is fitted to the graphs by convex optimisation. Sources as in configs/ergl.py. `:synthetic` takes
five to eleven minutes on one CPU core; benchmarks/RESULTS.md has scores.
"""

from configs import ergl

SHARES = ("synthetic", "delays", "soundscapes")  # whose labels are shares of the clip


def get_config(source: str = "tut2018"):
    """The settings of configs/ergl.py, with a finer time step and without time masks."""
    config = ergl.get_config(source).unlock()
    config.model.name = "ergl_dynamic"
    config.model.variant = "relations"
    config.model.encoder.time_pools = 3  # 0.08 s at a hop of 0.01 s
    config.data.front_end = "panns_16k"
    config.augment.time_masks = 0  # they would hide events that the labels have
    config.train.trainer = "relations"
    # For labels of whether an event sounds at all, such as a PANN's probabilities.
    config.model.pooling = "linear"
    config.train.loss = "events"
    if source in SHARES:
        config.model.pooling = "mean"
        config.model.dropout = 0.0
        config.train.epochs = 30
    if source in ("delays", "soundscapes"):  # with short events, whose shares are small
        config.train.loss = "activity"
    if source == "delays":
        config.data.train_clips_per_scene = 100
    if source == "soundscapes":
        config.data.manifest = "data/soundscapes_shares/manifest.csv"
        config.data.event_threshold = 0.05
        config.train.epochs = 20
    config.stages = (
        {
            "name": "events",
            "set": {"model.variant": "events", "train.trainer": "sgd"},
            "take": {"encoder": "encoder", "activity": "activity"},
        },
    )
    return config.lock()
