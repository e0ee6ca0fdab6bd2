"""The configuration's schema: every field, its type, its range and its allowed values.

configs/ergl.py describes each field; the defaults here are those of its `get_config()`, the paper's
settings. `Config.from_dict` validates a configuration file and its overrides once; the rest of the
package trusts these dataclasses.
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, Self, get_args, get_origin, get_type_hints

from ergl_jax import schema
from ergl_jax.audio import CHANNELS, FRONT_ENDS, get_front_end
from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET
from ergl_jax.models.dynamic import POOLINGS
from ergl_jax.models.encoders import ENCODERS
from ergl_jax.models.events import TOKENS
from ergl_jax.models.gated_gcn import GATES
from ergl_jax.models.panns import ARCHITECTURES
from ergl_jax.systems import CLOSED_FORM, DTYPES, SYSTEMS

MAX_CLIP_SECONDS = 3600.0


class Rule(NamedTuple):
    """A condition on a field's value, and the error text for a value that breaks it."""

    holds: Callable[[Any], bool]
    text: str


def one_of(*allowed: str) -> Rule:
    return Rule(lambda x: x in allowed, f"is not one of: {', '.join(allowed)}")


def at_least(low: float) -> Rule:
    return Rule(lambda x: x >= low, f"must be at least {low}")


def at_most(high: float) -> Rule:
    return Rule(lambda x: x <= high, f"must be at most {high}")


def above(low: float) -> Rule:
    return Rule(lambda x: x > low, f"must be above {low}")


def _is_front_end(name: str) -> bool:
    front_end, _, channel = name.partition(":")
    return front_end in FRONT_ENDS and (name == front_end or channel in CHANNELS)


below_one = Rule(lambda x: x < 1, "must be below 1")
FRONT_END = Rule(_is_front_end, one_of(*FRONT_ENDS).text + f"; or one with :{', :'.join(CHANNELS)}")
Positive = Annotated[int, at_least(1)]
NotNegative = Annotated[int, at_least(0)]
Dropout = Annotated[float, at_least(0), below_one]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    source: Annotated[str, one_of("tut2018", "synthetic", "delays", "folder")] = "tut2018"
    root: str = ""
    manifest: str = ""
    events_file: str = ""
    annotations: str = ""
    test_folds: tuple = ()
    validation_folds: tuple = ()
    licence: str = ""
    data_dir: str = "data/prepared"
    front_end: Annotated[str, FRONT_END] = "paper"
    clip_seconds: Annotated[float, above(0), at_most(MAX_CLIP_SECONDS)] = 10.0
    pad: Annotated[str, one_of("zero", "repeat")] = "zero"
    long: Annotated[str, one_of("crop", "windows")] = "crop"
    validation_fraction: Annotated[float, at_least(0), below_one] = 0.3
    validation_seed: NotNegative = 0
    events: str = ""
    num_events: Annotated[int, at_least(1), at_most(len(AUDIOSET))] = 25
    event_threshold: Annotated[float, above(0), at_most(1)] = 0.5
    resident: Annotated[str, one_of("auto", "always", "never")] = "auto"
    train_clips_per_scene: Positive = 60
    test_clips_per_scene: Positive = 20
    corpus_seed: NotNegative = 0

    @classmethod
    def from_saved(cls, found: Any) -> Self:
        """The data of a work directory's config.json; InputError for a wrong field.

        `annotations` may be absent, as in older versions.
        """
        if isinstance(found, dict):
            found = {"annotations": ""} | found
        return _checked(cls, found, "", "config.data.")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    architecture: Annotated[str, one_of(*ENCODERS)] = "cnn14"
    width_divisor: Positive = 1
    dropout: Dropout = 0.2
    time_pools: NotNegative = 0


@dataclasses.dataclass(frozen=True)
class GCNConfig:
    layers: Positive = 2
    gate: Annotated[str, one_of(*GATES)] = "sigmoid"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    name: Annotated[str, one_of(*SYSTEMS)] = "ergl"
    variant: str = ""
    frozen: bool = False
    compute_dtype: Annotated[str, one_of(*DTYPES)] = "float32"
    encoder: EncoderConfig = EncoderConfig()
    init_from: str = ""
    dropout: Dropout = 0.5
    channels: Positive = 64
    tokens: Annotated[str, one_of(*TOKENS)] = "frame"
    mel: bool = True
    pooling: Annotated[str, one_of(*POOLINGS)] = "mean"
    gcn: GCNConfig = GCNConfig()

    @classmethod
    def from_saved(cls, found: Mapping[str, Any]) -> Self:
        """A bundle's model; fields it does not use, or an older version lacked, may be absent.

        Raises InputError for a wrong field.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in found.items() if name in fields}
        if isinstance(known.get("encoder"), dict):
            known["encoder"] = {"time_pools": 0} | known["encoder"]
        return _checked(cls, _SAVED_DEFAULTS | known, "", "model.")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


_SAVED_DEFAULTS = {
    "variant": "",
    "frozen": False,
    "init_from": "",
    "channels": 64,
    "tokens": "frame",
    "mel": True,
    "pooling": "mean",
    "gcn": {"layers": 2, "gate": "sigmoid"},
}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: Annotated[float, above(0)] = 1e-3
    weight_decay: Annotated[float, at_least(0)] = 1e-2
    schedule: Annotated[str, one_of("constant", "cosine")] = "constant"
    warmup_epochs: Annotated[float, at_least(0)] = 0.0


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    batch_size: Positive = 64
    epochs: Positive = 300
    validate_every: Positive = 1
    loss: str = "ergl"
    trainer: Annotated[str, one_of("sgd", *CLOSED_FORM)] = "sgd"
    select_from: Positive = 1
    skip_nonfinite: bool = False


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    roll: bool = False
    crop: Annotated[float, at_least(0), below_one] = 0.0
    mixup_alpha: Annotated[float, at_least(0)] = 0.0
    time_masks: NotNegative = 0
    time_width: NotNegative = 0
    mel_masks: NotNegative = 0
    mel_width: NotNegative = 0


@dataclasses.dataclass(frozen=True)
class Config:
    """A run's configuration."""

    seed: NotNegative = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    stages: tuple = ()  # see recipes/stages.py
    augment: AugmentConfig = AugmentConfig()

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], where: str = "") -> Self:
        """Checks fields and how they go together; an InputError names a wrong one."""
        config = _checked(cls, found, where, "config.")
        for field, reason in _conflicts(config):
            value = functools.reduce(getattr, field.split("."), config)
            raise InputError(f"{where}config.{field}={value!r} {reason}")
        return config

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def replace(self, where: str = "", **fields: Any) -> Self:
        """The same with other values of fields, `**{"train.epochs": 3}`, checked again."""
        changed = self.to_dict()
        for path, value in fields.items():
            *groups, field = path.split(".")
            group = changed
            for name in groups:
                group = group.get(name, {}) if isinstance(group, dict) else {}
            if not isinstance(group, dict) or field not in group:
                near = difflib.get_close_matches(path, _names(self.to_dict()), n=1)
                hint = f'; did you mean "{near[0]}"?' if near else ""
                raise InputError(f"{where}config.{path} is an unknown field{hint}")
            group[field] = value
        return type(self).from_dict(changed, where)


def _names(group: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The full names of all fields, such as "train.epochs"."""
    for name, value in group.items():
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _checked(cls: type, found: Any, where: str, prefix: str) -> Any:
    """An instance of the dataclass `cls` with its fields and those of its groups checked."""
    schema.check(found, _schema(cls), where, prefix)
    return _build(cls, found, where, prefix)


def _schema(cls: Any) -> schema.Schema:
    hints: dict[str, Any] = get_type_hints(cls)
    return {name: _schema(x) if dataclasses.is_dataclass(x) else x for name, x in hints.items()}


def _build(cls: Any, found: Mapping[str, Any], where: str, prefix: str) -> Any:
    values, hints = {}, get_type_hints(cls, include_extras=True)
    hint: Any
    for name, hint in hints.items():
        value = found[name]
        if dataclasses.is_dataclass(hint):
            values[name] = _build(hint, value, where, f"{prefix}{name}.")
            continue
        kind, *rules = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        for rule in rules:
            if not rule.holds(value):
                raise InputError(f"{where}{prefix}{name}={value!r} {rule.text}")
        values[name] = kind(value)
    return cls(**values)


def _conflicts(config: Config) -> Iterator[tuple[str, str]]:
    """Yields each field that does not go with the others, the reason and the remedy."""
    data, model, train = config.data, config.model, config.train
    system = SYSTEMS[model.name]
    form = (model.name, model.variant)
    if system.losses and train.loss not in system.losses:  # a PANN has none
        known = ", ".join(system.losses)
        yield "train.loss", f"is not a loss of model.name={model.name!r}: {known}"
    if data.source == "folder" and not data.manifest:
        yield "data.source", "needs a manifest: set data.manifest=PATH.csv"
    if data.annotations:
        made = data.source in ("synthetic", "delays")
        if train.loss != "frames":
            yield "data.annotations", f"is for train.loss='frames', not {train.loss!r}"
        if data.source == "tut2018" or made != (data.annotations == "truth"):
            yield (
                "data.annotations",
                "does not fit data.source: set PATH.csv for folder, truth for synthetic and delays",
            )
        if get_front_end(data.front_end).segment:
            yield "data.front_end", "cuts clips into segments; data.annotations needs another one"
    elif train.loss == "frames":
        reason = "needs the times of events: set data.annotations=PATH.csv"
        yield "train.loss", f"{reason}, or =truth for data.source=synthetic or delays"
    if model.encoder.time_pools and model.encoder.architecture not in ARCHITECTURES:
        yield "model.encoder.time_pools", f"is for encoders {', '.join(ARCHITECTURES)} alone"
    wavegram = model.encoder.architecture == "wavegram_logmel_cnn14"
    if get_front_end(data.front_end).waveform != wavegram:
        reason = "does not fit this encoder: panns_wavegram is only for wavegram_logmel_cnn14"
        yield "data.front_end", f"{reason}, which needs it"
    if wavegram and config.augment.mel_masks:
        yield "augment.mel_masks", "would mask the waveform too: it must be 0 for panns_wavegram"
    if get_front_end(data.front_end).segment and config.augment.crop:
        yield "augment.crop", "would cut across the segments of data.front_end: it must be 0"
    if model.name == "pann":
        reason = "tags events and has no scenes: train pann_scene, or start another model from a"
        yield "model.name", f"{reason} PANN with model.init_from"
    if model.variant not in (system.variants or ("",)):
        known = ", ".join(system.variants) or "none, leave it empty"
        yield "model.variant", f"is not a variant of model.name={model.name!r}: {known}"
    if model.frozen and model.name != "pann_scene":
        yield "model.frozen", f"is for model.name='pann_scene', not {model.name!r}"
    if model.name == "pann_scene" and not model.init_from:
        reason = "is empty: model.name='pann_scene' needs the bundle of a PANN, made by"
        yield "model.init_from", f"{reason} data_prep/port_panns.py"
    if config.optimizer.warmup_epochs >= train.epochs:
        yield "optimizer.warmup_epochs", f"must be less than train.epochs={train.epochs}"
    if train.select_from > train.epochs:
        yield "train.select_from", f"is after the last epoch, train.epochs={train.epochs}"
    if train.trainer in CLOSED_FORM:
        if form != CLOSED_FORM[train.trainer]:
            name, variant = CLOSED_FORM[train.trainer]
            yield "train.trainer", f"is for model.name={name!r}, model.variant={variant!r}"
        if not config.stages:
            yield "train.trainer", "requires config.stages, whose outputs it is fitted to"
    elif form in CLOSED_FORM.values():
        yield (
            "train.trainer",
            f"cannot train model.variant={model.variant!r}: use --config=configs/{model.name}.py",
        )
