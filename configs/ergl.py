"""ERGL as in the paper (arXiv 2210.15366), on TUT Urban Acoustic Scenes 2018.

    python run.py --config=configs/ergl.py                TUT 2018, the paper's settings
    python run.py --config=configs/ergl.py:synthetic      the built-in synthetic corpus
    python run.py --config=configs/ergl.py:delays         synthetic: which event comes first
    python run.py --config=configs/ergl.py:folder --config.data.manifest=my.csv
    python run.py --config=configs/ergl.py:soundscapes    mixtures of data_prep/mix_soundscapes.py

The paper reports 78.08 +- 2.01 % on TUT 2018. `:synthetic` takes some three minutes on two CPU
cores; README.md has its score. `:folder` trains on the recordings of a manifest (docs/data.md).
"""

import ml_collections

SOURCES = ("tut2018", "synthetic", "delays", "folder", "soundscapes")
SMALL = ("synthetic", "delays", "soundscapes")  # corpora that a narrow model learns in minutes


def get_config(source: str = "tut2018") -> ml_collections.ConfigDict:
    """The configuration for one of SOURCES, locked: an unknown field is an error."""
    if source not in SOURCES:
        raise ValueError(f"--config: unknown source {source!r}: choose from {', '.join(SOURCES)}")
    config = ml_collections.ConfigDict()

    # Seed of initial weights, dropout, augmentation and the order of clips. Dropout and
    # augmentation also depend on the number of devices, which on CPU are cores.
    config.seed = 0

    config.data = data = ml_collections.ConfigDict()
    # "tut2018", "synthetic", "delays" (synthetic; scenes differ in the order of two events) or
    # "folder" (also soundscapes).
    data.source = source
    # tut2018: the directory of manifest.csv and the recordings; "" is <data_dir>/tut2018.
    data.root = ""
    # folder: the CSV that lists the recordings.
    data.manifest = ""
    # tut2018, folder: an .npz of event probabilities; "" takes the one beside the manifest, if any.
    data.events_file = ""
    # When each event sounds, for train.loss="frames". folder: a CSV with the columns clip, onset,
    # offset and event; synthetic, delays: "truth".
    data.annotations = ""
    # folder: for a manifest with folds, which ones test and which ones validate.
    data.test_folds = ()
    data.validation_folds = ()
    # folder: the recordings' licence, saved in the bundle.
    data.licence = ""
    # The directory of prepared features, and of TUT 2018 itself.
    data.data_dir = "data/prepared"
    # "paper" (32 kHz), or a PANN's: "panns_8k" (Cnn14_8k), "panns_16k" (Cnn14_16k), "panns_32k"
    # (most others) or "panns_wavegram" (wavegram_logmel_cnn14); or another system's: "kong",
    # "kong_20hz", "dcase2018", "mel128", "mtl", "mltf", "scattering".
    # "paper:left", ":right" or ":mix" takes that channel of every recording; "paper" their mean.
    data.front_end = "paper"
    # Every clip is cut or filled to this length.
    data.clip_seconds = 10.0
    # What fills a shorter recording: "zero" (silence) or "repeat".
    data.pad = "zero"
    # What happens to a longer one: "crop" keeps its centre, "windows" makes several clips of it.
    data.long = "crop"
    # Share of the training clips held out for validation, in whole groups, where no validation
    # split is given. At 0 nothing is held out and the last epoch is the result.
    data.validation_fraction = 0.3
    # Seed of the choice of these groups.
    data.validation_seed = 0
    # What ranks the events: "" their probability accumulated over the training split (§3.1), or the
    # path of a list, one event per line, as data_prep/rank_events.py writes. "paper" is an error:
    # the paper's own list was never published in full.
    data.events = ""
    # n: the first n of that ranking become the nodes of the graph.
    data.num_events = 25
    # A label of at least this counts as "present" in the mean average precision of events.
    data.event_threshold = 0.5
    # Keep the training split on the devices: "auto" (when it fits), "always" or "never" (stream).
    data.resident = "auto"
    # synthetic, delays: clips of each scene, and the seed they are made from.
    data.train_clips_per_scene = 60
    data.test_clips_per_scene = 20
    data.corpus_seed = 0

    config.model = model = ml_collections.ConfigDict()
    # "ergl", "cnn" (the encoder alone with a scene layer), or another system of the paper's tables:
    # ergl_jax/systems.py lists all, each with a configuration file of its own.
    model.name = "ergl"
    # For systems of several forms. ergl_dynamic: the stage, "events" or "relations"; pann_scene:
    # the input of its scene layer, "embedding" or "tags"; nnf: "mel", "filtered", "both" or
    # "ensemble"; mltf: "cnn" or "svm".
    model.variant = ""
    # pann_scene: whether the PANN is frozen and only the scene layer is trained.
    model.frozen = False
    # "float32" or "bfloat16"; parameters, statistics, softmax and losses stay float32.
    model.compute_dtype = "float32"
    model.encoder = ml_collections.ConfigDict()
    # "cnn14", "cnn10", "cnn6", "resnet22", "resnet38", "mobilenetv1" or "wavegram_logmel_cnn14"
    # (docs/panns.md).
    model.encoder.architecture = "cnn14"
    # All channels of the encoder, or of another system, are divided by this.
    model.encoder.width_divisor = 1
    # Dropout after each block; mobilenetv1 has none.
    model.encoder.dropout = 0.2
    # How many of the blocks that halve frequency, from the first, also halve time; 0: all of them.
    # For cnn14, cnn10 and cnn6 only.
    model.encoder.time_pools = 0
    # A bundle to take the encoder's initial weights from, such as data_prep/port_panns.py makes,
    # of the same architecture, width and front end. "": random weights, as in the paper.
    model.init_from = ""
    # Dropout before the shared layer of the event embeddings and before the scene layer; systems
    # with layers of their own have dropout of their own.
    model.dropout = 0.5
    # C, the channels of nodes and edges.
    model.channels = 64
    # "frame": each event has a token per encoder frame; "clip": one token, §2.1 read literally.
    model.tokens = "frame"
    # False: the ablation without edges (the paper's, without multi-dimensional edges: 73.55 %).
    model.mel = True
    # ergl_dynamic: how an event's activity is pooled over time for the event loss: "mean" if labels
    # are shares of the clip, "linear" (linear softmax) if they say whether the event sounds at all.
    model.pooling = "mean"
    model.gcn = ml_collections.ConfigDict()
    # U, the number of graph convolutions.
    model.gcn.layers = 2
    # "sigmoid" (Bresson & Laurent) or "softmax" (ME-GraphAU).
    model.gcn.gate = "sigmoid"

    config.optimizer = optimizer = ml_collections.ConfigDict()
    # AdamW, with PyTorch's defaults: the paper was trained there.
    optimizer.learning_rate = 1e-3
    optimizer.weight_decay = 1e-2
    # "constant" or "cosine" (to zero over all epochs).
    optimizer.schedule = "constant"
    # Epochs of linear warm-up from zero; may be a fraction.
    optimizer.warmup_epochs = 0.0

    config.train = train = ml_collections.ConfigDict()
    # Clips per step, over all devices.
    train.batch_size = 64
    train.epochs = 300
    # Validate after every n-th epoch, and after the last.
    train.validate_every = 1
    # "ergl" (§2: cross entropy of the scene, squared error of the events), or a loss of another
    # system: see ergl_jax/systems.py. ergl_dynamic: "events", "activity" where labels are small
    # shares of the clip, or "frames" for labels of every frame, by data.annotations.
    train.loss = "ergl"
    # "sgd", gradient descent in epochs; or a fit to the trained network's outputs: "relations"
    # (ergl_dynamic), "svm" (mltf) or "ensemble" (nnf).
    train.trainer = "sgd"
    # The first epoch that validation may choose.
    train.select_from = 1
    # Skip and count updates that are NaN or infinite, instead of stopping.
    train.skip_nonfinite = False

    # Runs whose weights this one starts from: see ergl_jax/recipes/stages.py.
    config.stages = ()

    # All off in the paper.
    config.augment = augment = ml_collections.ConfigDict()
    # Shift each clip circularly in time by a random amount.
    augment.roll = False
    # Train on a random stretch of each clip: this share of its length is cut away; 0 is off. Labels
    # of a clip's events stay those of the whole clip; those of frames are cut too.
    augment.crop = 0.0
    # Mixup of pairs of clips by shares from Beta(alpha, alpha); 0 is off.
    augment.mixup_alpha = 0.0
    # SpecAugment: the number of masks, and their greatest width in frames and mel bins.
    augment.time_masks = 0
    augment.time_width = 0
    augment.mel_masks = 0
    augment.mel_width = 0

    if source in SMALL:
        data.clip_seconds = 5.0
        # Synthetic: too few training locations to hold any out. Soundscapes have a validation fold.
        data.validation_fraction = 0.0
        model.encoder.architecture = "cnn10"
        model.encoder.width_divisor = 8
        model.encoder.dropout = 0.0
        model.dropout = 0.2
        optimizer.schedule = "cosine"
        optimizer.learning_rate = 2e-3
        optimizer.warmup_epochs = 1.0
        train.batch_size = 16
        train.epochs = 16
        # ERGL overfits some hundred training clips without these.
        augment.roll = True
        augment.time_masks = 2
        augment.time_width = 30
        augment.mel_masks = 2
        augment.mel_width = 6
    if source in ("synthetic", "delays"):
        data.front_end = "panns_16k"
        data.num_events = 14
        data.event_threshold = 0.05
    if source == "delays":
        data.clip_seconds = 10.0
        augment.roll = False  # rolling past the clip's end would swap the order of events
    if source == "soundscapes":
        data.source = "folder"
        data.manifest = "data/soundscapes/manifest.csv"
        data.licence = "Per recording: see the manifest and annotations.csv beside it"
        data.front_end = "kong"
        data.clip_seconds = 10.0
        data.num_events = 10
    return config.lock()


def recipes(source: str) -> tuple[str, ...]:
    """The recipes of a source (see `for_system`), the default first."""
    return ("ergl",) if source in SMALL else ("native", "ergl")


def for_system(
    argument: str, name: str, divisor: int = 8
) -> tuple[ml_collections.ConfigDict, bool]:
    """Where the configuration of the system `name` begins, and whether its recipe is its own.

    Args:
      argument: "<source>" or "<source>,<recipe>", recipe being "native" (features, optimiser and
        epochs of whoever published the system) or "ergl" (those of ERGL for that source). The
        small corpora have "ergl" alone, so that all systems train alike there.
      name: of the system.
      divisor: of its channels on the small corpora, such that it has 70,000 to 195,000 parameters
        on soundscapes, where ERGL has 191,418. RGASC has 626,000, most of them in its last blocks:
        as narrow as the others its first have two channels and hear little.

    Returns:
      The configuration of `get_config(source)` with the system's name, unlocked.
    """
    source, _, recipe = argument.partition(",")
    config = get_config(source).unlock()
    known = recipes(source)
    recipe = recipe or known[0]
    if recipe not in known:
        raise ValueError(f"{argument}: the recipes of {source} are {', '.join(known)}")
    config.model.name = name
    if source in SMALL:
        config.model.encoder.width_divisor = divisor
    return config, recipe == "native"
