"""A recurrent network on the deep scattering spectrum (76.6 % on TUT 2018).

    python run.py --config=configs/wavelet_crnn.py
    python run.py --config=configs/wavelet_crnn.py:synthetic

See ergl_jax/baselines/wavelet_crnn.py; our interpretation.
"""

from configs import ergl


def get_config(argument: str = "tut2018"):
    """Its own features with either recipe; Adam and 100 epochs with its own."""
    config, native = ergl.for_system(argument, "wavelet_crnn", divisor=4)
    config.data.front_end = "scattering"
    if native:
        config.optimizer.weight_decay = 0.0
        config.train.epochs = 100
    config.augment.mel_masks = 0  # bands are not all neighbours: there are two orders
    return config.lock()
