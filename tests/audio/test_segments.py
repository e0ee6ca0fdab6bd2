"""How recordings are cut, and that decoding ahead keeps order, errors and bounds."""

import os
import threading
import time

import numpy as np
import pytest

from ergl_jax import audio
from ergl_jax.audio import segments
from ergl_jax.errors import InputError


def test_cut_takes_the_centre_or_everything():
    x = np.arange(10.0)
    np.testing.assert_array_equal(segments.cut(x, 4, "zero", "crop"), [[3, 4, 5, 6]])
    np.testing.assert_array_equal(
        segments.cut(x, 4, "zero", "windows"), [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]
    )
    for long in ("crop", "windows"):
        np.testing.assert_array_equal(segments.cut(x[:2], 5, "repeat", long), [[0, 1, 0, 1, 0]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clip_seconds": -1.0}, "clip_seconds is -1.0"),
        ({"clip_seconds": float("nan")}, "clip_seconds is nan"),
        ({"clip_seconds": 0.016}, "panns_16k needs 0.016 s"),
        ({"pad": "cut"}, "pad is 'cut'"),
        ({"long": "pad"}, "long is 'pad'"),
    ],
)
def test_check_names_what_is_wrong(wrong, message):
    right = dict(clip_seconds=1.0, pad="zero", long="crop")
    front_end = audio.get_front_end("panns_16k")
    segments.check(front_end, **right)
    with pytest.raises(InputError, match=message):
        segments.check(front_end, **right | wrong)


@pytest.mark.parametrize(("name", "least"), [("kong", 2048), ("mltf", 48000)])
def test_check_knows_what_each_front_end_needs(name, least):
    front_end = audio.get_front_end(name)
    segments.check(front_end, least / front_end.sample_rate, "zero", "crop")
    with pytest.raises(InputError, match=f"{name} needs {least / front_end.sample_rate:.3f} s"):
        segments.check(front_end, (least - 1) / front_end.sample_rate, "zero", "crop")


def test_ahead_keeps_order_and_hands_on_errors():
    def slow(i):
        time.sleep(0.002 * (7 - i % 7))  # later ones end first
        if i == 5:
            raise InputError("five")
        return i * i

    found = list(segments.ahead(slow, range(20)))
    assert [item for item, _ in found] == list(range(20))
    assert [future.result() for item, future in found if item != 5] == [
        i * i for i in range(20) if i != 5
    ]
    with pytest.raises(InputError, match="five"):
        found[5][1].result()


def test_ahead_goes_only_so_far():
    taken, lock = [], threading.Lock()

    def items():
        for i in range(1000):
            with lock:
                taken.append(i)
            yield i

    source = segments.ahead(lambda i: i, items())
    next(source)
    assert len(taken) <= 2 * (os.cpu_count() or 1) + 1
    source.close()
