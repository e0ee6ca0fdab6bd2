"""DCASE 2024, task 1: scenes from little data and several devices (TAU Urban 2022 Mobile).

    python data_prep/soundata_manifest.py --dataset=tau2022uas_mobile --root=data/tau2022 \
      --subset=5 --out=data/tau2022_5.csv
    python run.py --config=configs/tau2022.py:5 --workdir=runs/tau2022_5

The argument is the training subset: 5, 10, 25, 50 or 100 per cent of the training clips of 1 s.
The test clips are the same for all; devices s4 to s6 occur only in them. The run prints accuracies
by scene, by device, and for seen and unseen devices, and writes them to results.json. There is no
validation split: the last epoch is evaluated. Not yet run on this data; the challenge's baseline
reaches 42.4, 45.3, 50.3, 53.2 and 57.0 % on the five subsets (arXiv 2405.10018).

It trains the encoder alone, a CNN. ERGL needs events, such as a PANN's labels of all clips
(docs/data.md): `--config.model.name=ergl --config.data.events_file=data/tau2022_100.events.npz`.
"""

from configs import ergl

SUBSETS = ("5", "10", "25", "50", "100")


def get_config(subset: str = "100"):
    """A quarter of Cnn10's channels.

    150, 150, 120, 60 and 30 epochs for 5, 10, 25, 50 and 100 % of the clips.
    """
    if subset not in SUBSETS:
        raise ValueError(f"configs/tau2022.py:{subset}: choose one of {', '.join(SUBSETS)}")
    config = ergl.get_config("folder")
    with config.unlocked():
        config.data.manifest = f"data/tau2022_{subset}.csv"
        config.data.clip_seconds = 1.0
        config.data.validation_fraction = 0.0

        config.model.name = "cnn"
        config.model.encoder.architecture = "cnn10"
        config.model.encoder.width_divisor = 4
        config.model.dropout = 0.2

        config.optimizer.schedule = "cosine"
        config.optimizer.warmup_epochs = 1.0
        config.train.batch_size = 256
        config.train.epochs = min(150, 3000 // int(subset))

        config.augment.roll = True
        config.augment.mixup_alpha = 0.3
        config.augment.time_masks = 1
        config.augment.time_width = 10
        config.augment.mel_masks = 2
        config.augment.mel_width = 6
    return config
