"""The synthetic corpus in miniature: every part of a run in seconds, nothing learnt. For the tests.

    python run.py --config=configs/test.py --workdir=runs/test

Its fields are those of configs/ergl.py, by test.
"""

from configs import ergl


def get_config():
    """Four training clips a scene, of 2 s, an encoder of 2 to 16 channels, two epochs."""
    config = ergl.get_config("synthetic")
    with config.unlocked():
        config.data.clip_seconds = 2.0
        config.data.train_clips_per_scene = 4
        config.data.test_clips_per_scene = 1
        config.data.validation_fraction = 0.25
        config.data.num_events = 4

        config.model.channels = 4
        config.model.encoder.architecture = "cnn6"
        config.model.encoder.width_divisor = 32
        config.model.gcn.layers = 1

        config.augment.roll = False
        config.augment.time_masks = 0
        config.augment.mel_masks = 0

        config.train.batch_size = 8
        config.train.epochs = 2
    return config
