"""Model cards, as huggingface_hub reads their metadata."""

import dataclasses
import re

import pytest

from ergl_jax import bundle as bundles
from ergl_jax.inference import model_card
from ergl_jax.inference.classify import Model

huggingface_hub = pytest.importorskip("huggingface_hub")
ADDRESS = "hf://me/scenes"


def test_the_card_of_a_model_of_many_events_and_no_scene(tiny):
    names = tuple(f"event{number}" for number in range(527))
    bundle = dataclasses.replace(bundles.load(tiny.workdir), scenes=(), events=names)
    text = model_card.write(bundle, ADDRESS, {}, picture=False)
    assert "event19 and 507 more" in text and "model.embed" in text
    assert f"ergl tag clip.wav --bundle {ADDRESS}" in text and "ergl classify" not in text
    program = text.split("```python\n")[1].split("```")[0]
    calls = set(re.findall(r"model\.(\w+)\(", program))
    assert calls == {"tag", "embed"} and all(hasattr(Model, name) for name in calls)
    assert "model.classify" not in text and "acoustic-scene" not in text


@pytest.mark.parametrize(
    ("licence", "source", "identifier", "link"),
    [
        ("CC BY-NC 4.0", "", "cc-by-nc-4.0", None),
        ("CC0", "", "cc0-1.0", None),
        ("", "", "unknown", None),
        ("CC0; CC BY 4.0", "", "other", None),
        ("CC BY 4.0 (https://creativecommons.org/licenses/by/4.0)", "", "cc-by-4.0", None),
        ("http://example.org/a; http://example.org/b", "", "other", "http://example.org/a"),
        ("CC BY 4.0", "teacher.pth (licence: CC BY-NC 4.0)", "other", None),
        ("", "teacher.pth (licence: CC BY 4.0)", "other", None),
        ("Non-commercial use only (https://a.org/b)", "", "other", "https://a.org/b"),
    ],
)
def test_a_licence_is_never_more_generous_than_the_data(tiny, licence, source, identifier, link):
    bundle = bundles.load(tiny.workdir)
    bundle = dataclasses.replace(bundle, licence=licence, source=source)
    card = huggingface_hub.ModelCard(model_card.write(bundle, ADDRESS, {}, picture=False))
    assert card.data.license == identifier and card.data.license_link == link
    assert licence in card.text and source in card.text
    if licence.startswith("http"):
        assert card.data.license_name == "see-the-card"
    elif identifier == "other":
        words = re.findall(r"[\w.]+", f"{licence.split('(')[0] or 'unknown'} {source}".lower())
        assert card.data.license_name == "-".join(words)
