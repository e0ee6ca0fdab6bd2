"""What is noted of a recording's level."""

import numpy as np
import pytest

from ergl_jax.audio.levels import is_silent, note_silence


@pytest.mark.parametrize(("silent", "noted"), [(0, 0), (2, 1), (3, 0)])
def test_some_silent_windows_are_noted(silent, noted):
    """All of them are a silent recording, which is noted otherwise."""
    windows = [np.zeros(8, np.float32)] * silent + [np.ones(8, np.float32)] * (3 - silent)
    notes = note_silence([is_silent(window) for window in windows])
    assert len(notes) == noted and all("2 of its 3 windows" in note for note in notes)
