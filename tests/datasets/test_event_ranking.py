"""Which events become nodes: ranked by probability, or by a list."""

import numpy as np
import pytest

from ergl_jax.datasets.events import choose_events, rank_events, read_list
from ergl_jax.errors import InputError

NAMES = ("Speech", "Car passing by", "Walk, footsteps", "Dog")
PROBABILITIES = np.float32([[0.1, 0.9, 0.2, 0.2], [0.3, 0.0, 0.5, 0.2]])  # 0.4, 0.9, 0.7, 0.4


def choose(ranking, count, names=NAMES):
    values = PROBABILITIES[:, : len(names)]
    listed = read_list(ranking)
    return choose_events(names, values, count=count, listed=listed, source=ranking).tolist()


def test_ranked_by_the_sum_and_equal_ones_in_order():
    assert rank_events(PROBABILITIES).tolist() == [1, 2, 0, 3]
    assert choose("", 4) == [1, 2, 0, 3] and choose("", 1) == [1]


def test_the_first_of_a_list(tmp_path):
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
        (None, 1, ["No such file"]),
    ],
)
def test_errors_of_a_list(tmp_path, content, count, parts):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as caught:
        choose(str(path), count)
    assert all(part in str(caught.value) for part in [str(path), *parts])


def test_too_few_events_and_the_unpublished_list():
    for arguments, message in (
        (("", 5), "data.num_events=5, but the dataset has 4 events"),
        (("", 1, ()), "or set model.name=cnn"),
        (("paper", 2), "not published .*Speech, Vehicle, Music, Silence, Animal.*rank_events.py"),
    ):
        with pytest.raises(InputError, match=message):
            choose(*arguments)
