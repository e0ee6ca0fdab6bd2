"""ERGL on ESC-10 (K. J. Piczak, 2015): ten kinds of sound as both scenes and events.

    python data_prep/esc10_manifest.py --root ESC-50-master --out data/esc10.csv
    python run.py --config=configs/esc10.py --workdir=runs/esc10

Tests on fold 4 and trains on all others; another fold by --config.data.test_folds="(3,)". There is
no validation split, because there are few training clips; the last epoch is evaluated. See
benchmarks/RESULTS.md for times and scores. The model in the package is trained on all folds, with
some clips held out to learn when to abstain:

    python data_prep/esc10_manifest.py --root ESC-10 --out data/all/esc10.csv --all_train
    python run.py --config=configs/esc10.py --workdir=runs/esc10_all \\
        --config.data.manifest=data/all/esc10.csv --config.data.test_folds="()" \\
        --config.data.validation_fraction=0.15 --config.train.select_from=240
"""

from configs import ergl


def get_config():
    """ERGL with an eighth of Cnn10's channels, trained with augmentation."""
    config = ergl.get_config("folder")
    with config.unlocked():
        config.data.manifest = "data/esc10.csv"
        config.data.test_folds = (4,)
        config.data.clip_seconds = 5.0
        config.data.front_end = "panns_16k"
        config.data.pad = "repeat"
        config.data.validation_fraction = 0.0
        config.data.num_events = 10

        config.model.encoder.architecture = "cnn10"
        config.model.encoder.width_divisor = 8
        config.model.encoder.dropout = 0.0
        config.model.dropout = 0.1

        config.optimizer.schedule = "cosine"
        config.optimizer.warmup_epochs = 2.0
        config.train.batch_size = 8
        config.train.epochs = 240

        config.augment.roll = True
        config.augment.crop = 0.5
        config.augment.time_masks = 2
        config.augment.time_width = 30
        config.augment.mel_masks = 2
        config.augment.mel_width = 6
    return config
