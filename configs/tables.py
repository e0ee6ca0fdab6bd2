"""The tables of the paper (arXiv 2210.15366), a run for each row and seed.

    python run.py --config=configs/tables.py:3 --config.seeds=0,1,2
    python run.py --config=configs/tables.py:1 --config.rows="('n25','n50')"
    python run.py --config=configs/tables.py:4 --config.source=synthetic --config.shard=0/2

1: numbers of events; 2: numbers of graph convolutions; 3: systems for scenes alone; 4: systems for
scenes and events; mel: the ablation without multi-dimensional edges; main: the systems most often
compared with ERGL. `--workdir` has a directory for each run, and table.md and table.csv with the
published and the measured accuracy. The PANN's rows need its bundle, given with
--config.overrides="('model.init_from=BUNDLE',)"; model.init_from and model.variant apply to these
rows alone, since the others start from random weights.
"""

import ast
import functools
import operator
import re

import ml_collections

from configs import (
    abcnn,
    attention_crnn,
    conditional,
    dcase2018,
    ergl,
    joint,
    mltf,
    mtl,
    nnf,
    pann,
    rgasc,
    surrey,
    wavelet_crnn,
)
from ergl_jax import schema
from ergl_jax.errors import InputError
from ergl_jax.recipes.tables import Row

INTERPRETATION = "interpretation"
# Table 1: n -> accuracy and standard deviation. Table 2: U -> the same.
EVENTS = {
    10: "74.75 ± 2.61",
    25: "78.08 ± 2.01",
    50: "76.02 ± 2.08",
    75: "75.42 ± 1.45",
    100: "75.30 ± 1.57",
    150: "75.39 ± 1.83",
    200: "74.66 ± 1.40",
    250: "74.81 ± 1.92",
    300: "73.97 ± 2.31",
    400: "72.63 ± 1.93",
}
LAYERS = {
    1: "74.53 ± 2.12",
    2: "78.08 ± 2.01",
    3: "76.19 ± 1.86",
    4: "76.33 ± 1.95",
    5: "75.44 ± 2.03",
    6: "74.91 ± 1.88",
    7: "74.52 ± 1.69",
    8: "74.00 ± 1.91",
}
# Row -> its configuration, fields in which it differs, published accuracy, remarks.
SYSTEMS = {
    "pann_fixed": (pann, {"model.frozen": True}, "56.9", ""),
    "pann_finetuned": (pann, {}, "73.8", ""),
    "dcase2018": (dcase2018, {}, "59.7", ""),
    "surrey": (surrey, {}, "68.0", ""),
    "nnf_cnnens": (nnf, {}, "69.3", INTERPRETATION),
    "attention_crnn": (attention_crnn, {}, "70.8", INTERPRETATION),
    "abcnn": (abcnn, {}, "72.6", ""),
    "mltf": (mltf, {}, "75.3", "the network is an " + INTERPRETATION),
    "wavelet_crnn": (wavelet_crnn, {}, "76.6", INTERPRETATION),
    "joint": (joint, {}, "52.35", INTERPRETATION),
    "mtl": (mtl, {}, "61.69", ""),
    "conditional": (conditional, {}, "66.39", INTERPRETATION),
    "rgasc": (rgasc, {}, "77.35", ""),
    "rgasc_prob": (rgasc, {"train.loss": "rgasc_prob"}, "", "probabilities for logarithms"),
    "cnn": (ergl, {"model.name": "cnn"}, "", "ERGL's encoder, from scratch"),
    "ergl_without_mel": (ergl, {"model.mel": False}, "73.55", ""),
    "ergl": (ergl, {}, "78.08 ± 2.01", ""),
    **{f"n{n}": (ergl, {"data.num_events": n}, accuracy, "") for n, accuracy in EVENTS.items()},
    **{f"U{u}": (ergl, {"model.gcn.layers": u}, accuracy, "") for u, accuracy in LAYERS.items()},
}
TABLES = {
    "1": tuple(f"n{n}" for n in EVENTS),
    "2": tuple(f"U{u}" for u in LAYERS),
    "3": (
        "pann_fixed",
        "pann_finetuned",
        "dcase2018",
        "surrey",
        "nnf_cnnens",
        "attention_crnn",
        "abcnn",
        "mltf",
        "wavelet_crnn",
        "ergl",
    ),
    "4": ("joint", "mtl", "conditional", "rgasc", "rgasc_prob", "ergl"),
    "mel": ("ergl_without_mel", "ergl"),
    "main": ("dcase2018", "surrey", "cnn", "ergl_without_mel", "ergl"),
}


def get_config(table: str = "3") -> ml_collections.ConfigDict:
    """Which runs, locked."""
    if table not in TABLES:
        raise ValueError(f"configs/tables.py:{table}: choose one of {', '.join(TABLES)}")
    config = ml_collections.ConfigDict()
    config.table = table
    # Rows of the table; () is all. n<N> and U<N> are ERGL with N events or N graph convolutions.
    config.rows = ()
    config.seeds = (0,)
    # "i/k": every k-th run from the i-th on, so that k processes or machines share a table.
    config.shard = "0/1"
    # A source of configs/ergl.py.
    config.source = "tut2018"
    # "native" or "ergl" (see configs/ergl.py, for_system); "" is the source's own.
    config.recipe = ""
    # Fields of every row, as "train.epochs=20".
    config.overrides = ()
    return config.lock()


def rows(config: ml_collections.ConfigDict) -> list[Row]:
    """The rows of a configuration; InputError for a wrong field."""
    schema.check(config.to_dict(), schema.schema_of(get_config().to_dict()), prefix="config.")
    names = [str(name) for name in config.rows or TABLES.get(config.table, ())]
    recipes, seeds = ergl.recipes(config.source), config.seeds
    whole = all(type(seed) is int and seed >= 0 for seed in seeds)
    shard = re.fullmatch(r"(\d+)/(\d+)", config.shard)
    for field, valid, reason in (
        ("table", config.table in TABLES, f"is not one of: {', '.join(TABLES)}"),
        ("rows", len(set(names)) == len(names), "names a row twice"),
        ("source", config.source in ergl.SOURCES, f"is not one of: {', '.join(ergl.SOURCES)}"),
        ("recipe", config.recipe in ("", *recipes), f"is not one of: {', '.join(recipes)}"),
        (
            "seeds",
            seeds and whole and len(set(seeds)) == len(seeds),
            "must be different whole numbers, 0 or more",
        ),
        ("shard", shard and int(shard[1]) < int(shard[2]), "is not like 0/4: i/k, i below k"),
    ):
        if not valid:
            raise InputError(f"config.{field}={config[field]!r} {reason}")
    argument = ",".join(filter(None, (config.source, config.recipe)))
    return [_row(name, argument, config) for name in names]


def _row(name: str, argument: str, config: ml_collections.ConfigDict) -> Row:
    if name in SYSTEMS:
        file, fields, published, remarks = SYSTEMS[name]
    elif re.fullmatch(r"[nU]\d+", name):
        field = {"n": "data.num_events", "U": "model.gcn.layers"}[name[0]]
        file, fields, published, remarks = ergl, {field: int(name[1:])}, "", ""
    else:
        raise InputError(f"rows: {name!r} is not one of: {', '.join(SYSTEMS)}")
    made = file.get_config(config.source if file is ergl else argument)
    variant = made.model.variant
    with made.unlocked():
        for override in config.overrides:
            _override(made, str(override))
        if file is not pann:  # the others start from random weights, as in the paper
            made.model.init_from, made.model.variant = "", variant
        made.update_from_flattened_dict(fields)
    return Row(name, made, published, remarks)


def _override(config: ml_collections.ConfigDict, override: str) -> None:
    """Sets the field of "field=value"."""
    field, _, text = override.partition("=")
    if field == "seed":
        raise InputError(f"overrides: {override!r}: use --config.seeds")
    try:
        old = functools.reduce(operator.getitem, field.split("."), config.to_dict())
        value = text if isinstance(old, str) else ast.literal_eval(text)
        if type(old) is float and type(value) is int:
            value = float(value)
        if type(value) is not type(old):
            raise TypeError
        config.update_from_flattened_dict({field: value})
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        raise InputError(
            f"overrides: {override!r} sets no field of configs/ergl.py, or has the wrong type"
        ) from error
