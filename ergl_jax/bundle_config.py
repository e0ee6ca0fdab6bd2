"""A bundle's config.json, read and checked."""

import dataclasses
import json
from typing import Any

from ergl_jax import schema
from ergl_jax.audio import CHANNELS, FRONT_ENDS
from ergl_jax.config import ModelConfig

FORMAT = 1
RANGES = {"clip_seconds": (0.01, 3600.0), "temperature": (1e-3, 1e3)}

_FIELDS: dict[str, type] = {
    "format": int,
    "model": dict,
    "scenes": list,
    "events": list,
    "front_end": dict,
    "clip_seconds": float,
    "pad": str,
    "licence": str,
    "dataset": str,
    "source": str,
    "temperature": float,
    "calibration": str,
}
_ADDED_LATER = {"source": "", "temperature": 1.0, "calibration": ""}  # absent from older bundles


def parse(text: bytes) -> dict[str, Any]:
    """The fields of a `Bundle` that config.json has; ValueError names a wrong one."""
    config = json.loads(text)
    if isinstance(config, dict):
        config = _ADDED_LATER | config
        if config["temperature"] != 1.0 and not config["calibration"]:
            config["calibration"] = "validation clips"  # their number wasn't saved then
        if config.get("format", FORMAT) != FORMAT:
            raise ValueError(
                f"format={config['format']!r}, but this version reads only {FORMAT}: install the "
                "version of ergl_jax that wrote it"
            )
    schema.check(config, _FIELDS, others=True)
    found = config["front_end"].items()
    channels = (None, *CHANNELS)
    for front_end in (x.with_channel(y) for x in FRONT_ENDS.values() for y in channels):
        if front_end.numbers().items() <= found <= dataclasses.asdict(front_end).items():
            break
    else:
        raise ValueError(f"this version can't reproduce the front end {config['front_end']}")
    for field, (low, high) in RANGES.items():
        if not low <= config[field] <= high:
            raise ValueError(f"{field}={config[field]} is not from {low:g} to {high:g}")
    if config["pad"] not in ("zero", "repeat"):
        raise ValueError(f'pad={config["pad"]!r} is neither "zero" nor "repeat"')
    for field in ("scenes", "events"):
        names = config[field]
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise ValueError(f"{field} is not a list of different names: {str(names)[:60]}")
    model = ModelConfig.from_saved(config["model"])
    if not config["scenes"] and model.name != "pann":
        raise ValueError("scenes is empty, which only a PANN's may be")
    return {name: config[name] for name in _FIELDS if name != "format"} | {
        "model": model,
        "scenes": tuple(config["scenes"]),
        "events": tuple(config["events"]),
        "front_end": front_end,
    }
