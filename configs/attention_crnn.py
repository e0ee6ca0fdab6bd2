"""A gated convolutional recurrent network with self-attention (70.8 % on TUT 2018).

    python run.py --config=configs/attention_crnn.py
    python run.py --config=configs/attention_crnn.py:synthetic

See ergl_jax/baselines/attention_crnn.py; its sizes are our interpretation.
"""

from configs import ergl


def get_config(argument: str = "tut2018"):
    """ERGL's recipe, but Adam and 100 epochs."""
    config, native = ergl.for_system(argument, "attention_crnn", divisor=4)
    if native:
        config.data.front_end = "kong"
        config.optimizer.weight_decay = 0.0
        config.train.epochs = 100
    return config.lock()
