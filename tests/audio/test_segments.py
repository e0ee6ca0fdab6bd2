"""Cutting into clips against slices of the whole recording; decoding a few items ahead."""

import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ergl_jax import audio
from ergl_jax.audio import segment, segments
from ergl_jax.errors import InputError


@given(
    st.integers(1, 60),
    st.integers(1, 25),
    st.sampled_from(segments.PADS),
    st.sampled_from(segments.LONGS),
    st.lists(st.integers(0, 60), max_size=12),
)
def test_clips_do_not_depend_on_the_blocks(total, length, pad, long, cuts):
    """Against slices of the whole recording, for any partition, empty blocks included."""
    whole = np.arange(1, total + 1, dtype=np.float32)
    if total < length:
        filled = [whole[i % total] if pad == "repeat" or i < total else 0 for i in range(length)]
        expected = [(0, filled)]
    else:
        windows = [min(at, total - length) for at in range(0, total, length)]
        starts = windows if long == "windows" else [(total - length) // 2]
        expected = [(start, whole[start : start + length].tolist()) for start in starts]
    blocks = np.split(whole, sorted(min(cut, total) for cut in cuts))
    for recording in (whole, iter(blocks)):
        found = list(segment(recording, length, pad=pad, long=long))
        assert [(start, clip.tolist()) for start, clip in found] == expected
        assert all(clip.dtype == np.float32 for _, clip in found)


def test_a_window_comes_as_soon_as_its_samples_are_there():
    def blocks():
        yield np.zeros(5, np.float32)
        raise AssertionError("asked for more")

    assert next(segment(blocks(), 4))[0] == 0


@pytest.mark.parametrize(
    ("total", "starts"), [(3, [0]), (1000, [0]), (1009, [0]), (1010, [0, 10]), (2009, [0, 1000])]
)
def test_a_short_rest_has_no_window_of_its_own(total, starts):
    found = segment(np.ones(total, np.float32), 1000, min_rest=10)
    assert [start for start, _ in found] == starts


@pytest.mark.parametrize("wrong", [{"pad": "wrap"}, {"long": "all"}, {"length": 0}])
def test_wrong_arguments_raise(wrong):
    with pytest.raises(ValueError, match="length="):
        list(segment(np.ones(4), **{"length": 8} | wrong))


@pytest.mark.parametrize(
    ("name", "value"),
    [("clip_seconds", float("nan")), ("clip_seconds", 3601.0), ("pad", "cut"), ("long", "pad")],
)
def test_check_names_what_is_wrong(name, value):
    right = dict(clip_seconds=1.0, pad="zero", long="crop")
    with pytest.raises(InputError, match=f"{name} is {value!r}"):
        segments.check(audio.get_front_end("panns_16k"), **right | {name: value})


@pytest.mark.parametrize(("name", "shortest"), [("kong", 2048), ("mltf", 48000)])
def test_check_uses_the_shortest_clip_of_the_front_end(name, shortest):
    front_end = audio.get_front_end(name)
    segments.check(front_end, shortest / front_end.sample_rate, "zero", "crop")
    with pytest.raises(InputError, match=f"{name} needs {shortest / front_end.sample_rate:.3f} s"):
        segments.check(front_end, (shortest - 1) / front_end.sample_rate, "zero", "crop")


def test_prefetch_keeps_order_and_errors():
    def slow(i):
        time.sleep(0.002 * (7 - i % 7))  # later ones end first
        if i == 5:
            raise InputError("five")
        return i * i

    found = list(segments.prefetch(slow, range(20)))
    assert [item for item, _ in found] == list(range(20))
    assert [future.result() for item, future in found if item != 5] == [
        i * i for i in range(20) if i != 5
    ]
    with pytest.raises(InputError, match="five"):
        found[5][1].result()


def test_prefetch_is_bounded():
    taken, lock = [], threading.Lock()

    def items():
        for i in range(1000):
            with lock:
                taken.append(i)
            yield i

    source = segments.prefetch(lambda i: i, items())
    next(source)
    assert len(taken) <= 2 * (os.cpu_count() or 1) + 1
    source.close()
