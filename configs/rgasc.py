"""Relation-guided acoustic scene classification (RGASC, IJCNN 2022; 77.35 % on TUT 2018).

    python run.py --config=configs/rgasc.py
    python run.py --config=configs/rgasc.py --config.train.loss=rgasc_prob
    python run.py --config=configs/rgasc.py:synthetic

Two stages train a model for one task each; the final run begins with their weights. `rgasc_log`
relates events to log-probabilities of scenes, as the published code does. See
ergl_jax/baselines/rgasc.py.
"""

from configs import ergl


def get_config(argument: str = "tut2018"):
    """All 527 events; Adam, 64 clips, 100 epochs for each of the three runs."""
    config, native = ergl.for_system(argument, "rgasc", divisor=16)
    config.train.loss = "rgasc_log"
    if native:
        config.data.front_end = "kong"
        config.data.num_events = 527
        config.optimizer.weight_decay = 0.0
        config.train.epochs = 100
    config.stages = (
        {
            "name": "scene",
            "set": {"train.loss": "scene"},
            "take": {name: name for name in ("shared", "scene_tower", "scene")},
        },
        {
            "name": "events",
            "set": {"train.loss": "events"},
            "take": {name: name for name in ("event_tower", "events")},
        },
    )
    return config.lock()
