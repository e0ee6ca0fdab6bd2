"""A bundle's model card: the README.md of its repository on the Hugging Face Hub.

Its metadata is that of the Hub's own specification, modelcard.md of huggingface/hub-docs.
"""

import re
from collections.abc import Mapping
from typing import Any

import jinja2
import yaml

from ergl_jax.bundle import Bundle
from ergl_jax.inference.html_page import LOADER

NAME, PICTURE = "README.md", "confusion.png"
MARK = "<!-- `ergl push` replaces this card. Remove this line to keep your own. -->"
SHOWN_EVENTS = 20
# Fields of results.json, as metrics of the Hub: type, name.
SCORES = {
    "class_mean_accuracy": ("accuracy", "Class-wise mean accuracy"),
    "accuracy": ("accuracy", "Accuracy"),
    "event_map": ("mean_average_precision", "Mean average precision of events"),
    "expected_calibration_error": ("expected_calibration_error", "Expected calibration error"),
}
# The Hub's identifiers of licences that data sets have.
LICENCES = (
    *("apache-2.0", "mit", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0"),
)


def write(bundle: Bundle, address: str, results: Mapping[str, Any], picture: bool) -> str:
    """The card's text.

    Args:
      bundle: the model.
      address: hf://OWNER/NAME, where it will be.
      results: of its run, as in results.json; empty if there are none.
      picture: whether PICTURE is uploaded too.
    """
    name = address.split("@")[0].rpartition("/")[2]
    test = results.get("test") or {}
    scores: list[dict[str, Any]] = [
        {"type": kind, "name": label, "value": round(float(test[field]), 4)}
        for field, (kind, label) in SCORES.items()
        if test.get(field) is not None
    ]
    metadata: dict[str, Any] = {
        "library_name": "ergl_jax",
        "pipeline_tag": "audio-classification",
        "tags": [
            *("jax", "flax", bundle.model.name),
            "acoustic-scene-classification" if bundle.scenes else "audio-tagging",
        ],
        **licence(bundle),
    }
    if scores:
        task = {"type": "audio-classification", "name": "Acoustic scene classification"}
        data = {"type": _identifier(bundle.dataset), "name": bundle.dataset, "split": "test"}
        found = {"task": task, "dataset": data, "metrics": scores}
        metadata |= {"metrics": ["accuracy"], "model-index": [{"name": name, "results": [found]}]}
    environment = jinja2.Environment(
        loader=LOADER, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.get_template("model_card.md").render(
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
        mark=MARK,
        name=name,
        address=address,
        bundle=bundle,
        shown=SHOWN_EVENTS,
        scores=scores,
        clips=results.get("clips", {}).get("test", "the"),
        picture=picture and PICTURE,
    )
    return re.sub(r"\n{3,}", "\n\n", text) + "\n"


def licence(bundle: Bundle) -> dict[str, str]:
    """The metadata's licence: the data's, if it is one of LICENCES and no other applies.

    Otherwise "other" with its name and the first URL in it, or "unknown" where none is recorded.
    """
    identifier = _identifier(_without_urls(bundle.licence))
    identifier = "cc0-1.0" if identifier == "cc0" else identifier
    if not bundle.source and (identifier in LICENCES or not bundle.licence):
        return {"license": identifier or "unknown"}
    text = f"{bundle.licence or 'unknown'} {bundle.source}"
    link = re.search(r"https?://[^\s()<>;,]+", text)
    name = _identifier(_without_urls(text)) or "see-the-card"
    named = {"license": "other", "license_name": name}
    return named | ({"license_link": link[0]} if link else {})


def _without_urls(text: str) -> str:
    return re.sub(r"\(?https?://[^\s()]+\)?", "", text).strip()


def _identifier(text: str) -> str:
    """Lower-case words with hyphens, as the Hub's identifiers."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:96].strip("-.")
