"""benchmarks/stems.py with a model whose answer to each sound is known."""

import types

import numpy as np
import pytest

from ergl_jax.audio import get_front_end
from ergl_jax.inference.contributions import scene_log_odds

RATE, SECONDS = 16000, 0.5
TIME = np.arange(int(RATE * SECONDS)) / RATE
STEMS = {name: np.sin(2 * np.pi * f * TIME) for name, f in (("a", 100), ("b", 200), ("c", 400))}
BACKGROUND = np.sin(2 * np.pi * 800 * TIME)


class Planted:
    """Scene "together" gains 1 from a, 2 from b, 4 from both, 3 from c, 8 from the background."""

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


def test_planted_relations_are_found(load_script):
    module = load_script("benchmarks/stems.py")
    settings = {"sample_rate": RATE, "background": BACKGROUND}
    found = module.sound_relations(Planted(), STEMS, **settings, against="alone")
    assert (found.scene, found.names) == ("together", ("a", "b", "c"))
    np.testing.assert_allclose(found.alone, [5, 6, 3], atol=1e-2)
    np.testing.assert_allclose(found.pairs, [[0, 4, 0], [4, 0, 0], [0, 0, 0]], atol=1e-2)
    assert set(found.strongest) == {"a", "b"}
    found = module.sound_relations(Planted(), STEMS, **settings)  # against all other scenes
    logits = np.array([[0, 18, -50], [0, 13, -50]], np.float32)  # with a, without
    fall = np.subtract(*scene_log_odds(logits, 1))
    assert found.alone[0] == pytest.approx(fall, abs=1e-2)
    with pytest.raises(ValueError, match="against='together'"):
        module.sound_relations(Planted(), STEMS, **settings, against="together")
