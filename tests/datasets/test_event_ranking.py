"""Which events become nodes: ranked by probability, or by a list."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ergl_jax.datasets.events import choose_events, rank_events, read_list
from ergl_jax.errors import InputError
from ergl_jax.labels import AUDIOSET

NAMES = ("Speech", "Car passing by", "Walk, footsteps", "Dog")
PROBABILITIES = np.float32([[0.1, 0.9, 0.2, 0.2], [0.3, 0.0, 0.5, 0.2]])  # 0.4, 0.9, 0.7, 0.4


def error_of(ranking, count=2, names=NAMES):
    with pytest.raises(InputError) as caught:
        choose_events(names, PROBABILITIES[:, : len(names)], ranking=ranking, count=count)
    message = str(caught.value)
    assert "\n" not in message
    return message


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.floats(0, 1, width=32),
    )
)
def test_ranked_by_the_sum_and_equals_in_order(probabilities):
    ranked = rank_events(probabilities)
    sums = probabilities.astype(np.float64).sum(axis=0)
    expected = sorted(range(len(sums)), key=lambda event: (-sums[event], event))
    assert ranked.tolist() == expected


def test_the_most_probable_or_the_first_of_a_list(tmp_path):
    def choose(ranking, count):
        return choose_events(NAMES, PROBABILITIES, ranking=ranking, count=count).tolist()

    assert choose("", 4) == [1, 2, 0, 3] and choose("", 1) == [1]
    path = tmp_path / "list.txt"
    path.write_text("\ufeffDog\r\n\n  Walk, footsteps \nSpeech", encoding="utf-8")
    assert read_list(str(path)) == ["Dog", "Walk, footsteps", "Speech"] and read_list("") == []
    assert choose(str(path), 3) == [3, 2, 0] and choose(str(path), 2) == [3, 2]


@pytest.mark.parametrize(
    ("content", "count", "parts"),
    [
        ("Dog\nCat\n", 2, ["no event 'Cat'"]),
        ("Dog\nSpeech\nDog\n", 2, ["'Dog' twice"]),
        ("\n \n", 1, ["empty"]),
        ("Dog\nSpeech\n", 3, ["data.num_events=3", "has 2 events", "1..2"]),
        ("Dog\n", 0, ["data.num_events=0", "1..1"]),
        (None, 1, ["No such file"]),
        (b"\xff\xfe", 1, ["UTF-8"]),
    ],
)
def test_what_is_wrong_with_a_list_is_named(tmp_path, content, count, parts):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = error_of(str(path), count)
    assert all(part in message for part in [str(path), *parts])


def test_more_than_there_are_and_none():
    assert "data.num_events=5, but the dataset has 4 events" in error_of("", 5)
    assert "--config.model.name=cnn" in error_of("", 1, names=())


def test_the_papers_list_is_not_invented():
    """Its five known names are said; nothing pretends to be the other twenty."""
    message = error_of("paper")
    assert "not published" in message and "rank_events.py" in message
    assert [
        name for name in ("Speech", "Vehicle", "Music", "Silence", "Animal") if name in AUDIOSET
    ]
    assert "Speech, Vehicle, Music, Silence, Animal" in message
