"""A pretrained PANN as a scene classifier (arXiv 1912.10211): fixed 56.9 %, fine-tuned 73.8 %.

    python run.py --config=configs/pann.py --config.model.init_from=BUNDLE
    python run.py --config=configs/pann.py --config.model.init_from=BUNDLE --config.model.frozen

data_prep/port_panns.py makes BUNDLE from Cnn14_16k_mAP=0.438.pth. The scene layer reads the
embedding or, with --config.model.variant=tags, the 527 tags. The argument after ":" is
"<source>[,native|ergl]", as in the other systems' files.
"""

from configs import ergl


def get_config(argument: str = "tut2018"):
    """Its own features and width with either recipe.

    Learning rate, batch size and epochs are our interpretation.
    """
    config, native = ergl.for_system(argument, "pann_scene", divisor=1)
    config.data.front_end = "panns_16k"
    config.model.encoder.architecture = "cnn14"
    config.model.variant = "embedding"
    if native:
        config.optimizer.learning_rate = 1e-4
        config.optimizer.weight_decay = 0.0
        config.train.batch_size = 32
        config.train.epochs = 50
    return config.lock()
