"""Relations that are heard, against a model whose answer to each sound is known."""

import types

import numpy as np
import pytest

import ergl_jax
from ergl_jax.audio import get_front_end
from ergl_jax.inference.graph import scene_log_odds
from ergl_jax.inference.stems import sound_relations

RATE, SECONDS = 16000, 0.5
TIME = np.arange(int(RATE * SECONDS)) / RATE
STEMS = {name: np.sin(2 * np.pi * f * TIME) for name, f in (("a", 100), ("b", 200), ("c", 400))}
BACKGROUND = np.sin(2 * np.pi * 800 * TIME)


class Planted:
    """Scene "together" gains 1 by a, 2 by b, 4 by both, 3 by c and 8 by the background."""

    bundle = types.SimpleNamespace(
        scenes=("alone", "together", "never"),
        front_end=get_front_end("panns_16k"),
        clip_seconds=SECONDS,
        pad="zero",
    )

    def outputs(self, waveforms):
        sounds = np.stack([*STEMS.values(), BACKGROUND])
        a, b, c, d = (waveforms @ sounds.T / (len(TIME) / 2)).round(3).T
        together = a + 2 * b + 4 * a * b + 3 * c + 8 * d
        return np.stack([0 * a, together, 0 * a - 50], axis=1), None


def test_planted_relations_are_found():
    found = sound_relations(
        Planted(), STEMS, sample_rate=RATE, background=BACKGROUND, against="alone"
    )
    assert (found.scene, found.names) == ("together", ("a", "b", "c"))
    np.testing.assert_allclose(found.alone, [5, 6, 3], atol=1e-2)
    np.testing.assert_allclose(found.pairs, [[0, 4, 0], [4, 0, 0], [0, 0, 0]], atol=1e-2)
    assert set(found.strongest) == {"a", "b"}


def test_against_all_others_it_is_the_log_odds():
    found = sound_relations(Planted(), STEMS, sample_rate=RATE, background=BACKGROUND)
    logits = np.array([[0, 18, -50], [0, 13, -50]], np.float32)  # with a, without
    fall = np.subtract(*scene_log_odds(logits, 1))
    assert found.alone[0] == pytest.approx(fall, abs=1e-2)


def test_it_asks_the_whole_model(tiny):
    model = ergl_jax.load(tiny.workdir / "bundle")
    rng = np.random.default_rng(0)
    stems = {name: 0.1 * rng.standard_normal(40000) for name in "xyz"}
    found = sound_relations(model, stems, sample_rate=16000)
    scene = model.bundle.scenes.index(found.scene)

    def log_odds(kept):
        centre = sum((stems[name] for name in kept), np.zeros(40000))[4000:36000]
        logits, _ = model.outputs(np.float32(centre)[None])
        return float(scene_log_odds(logits, scene)[0])

    for i, name in enumerate("xyz"):
        without = log_odds([other for other in "xyz" if other != name])
        assert found.alone[i] == pytest.approx(log_odds("xyz") - without, abs=2e-3)
    both = log_odds("xyz") - log_odds("z")
    assert found.pairs[0, 1] == pytest.approx(found.alone[0] + found.alone[1] - both, abs=4e-3)
    np.testing.assert_array_equal(found.pairs, found.pairs.T)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stems": {"a": STEMS["a"]}}, "1 stem.*needs two"),
        ({"stems": STEMS | {"d": TIME[1:]}}, "differ in length"),
        ({"against": "moon"}, "against='moon' is not one of"),
        ({"against": "together"}, "called itself"),
        ({"stems": STEMS | {"c": np.full(len(TIME), np.nan)}}, "NaN"),
        ({"sample_rate": 0}, "sample_rate=0"),
    ],
)
def test_what_cannot_be_asked_is_refused(change, message):
    settings = {"stems": STEMS, "sample_rate": RATE, "background": BACKGROUND} | change
    with pytest.raises(ValueError, match=message):
        sound_relations(Planted(), settings.pop("stems"), **settings)
