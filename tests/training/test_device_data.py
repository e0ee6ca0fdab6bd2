"""A split on its way to the devices."""

import jax
import numpy as np
import pytest

from ergl_jax.datasets import batches, builder
from ergl_jax.datasets.scene_split import SceneSplit
from ergl_jax.training import device_data
from ergl_jax.training.step import local_share


@pytest.fixture(scope="module")
def split(tiny):
    return builder.load(next(tiny.data_dir.glob("*/*/*"))).split("train")


EVENTS = np.array([5, 0, 2])


def test_load_takes_the_chosen_events_in_their_order(split):
    data = device_data.load(split, EVENTS)
    assert data["log_mel"].shape == (30, 201, 64) and data["events"].shape == (30, 3)
    assert np.ptp(data["events"]) > 0
    for row in (0, 17, 29):
        np.testing.assert_array_equal(data["log_mel"][row], split[row]["log_mel"])
        np.testing.assert_array_equal(data["events"][row], split[row]["events"][EVENTS])
        assert data["scene"][row] == split[row]["scene"]


@pytest.fixture(scope="module")
def timed(split):
    """Rows with the activity of events at each frame."""
    rng = np.random.default_rng(0)
    rows = [split[index] for index in range(len(split))]
    names = {"name": b"a", "group": b"g"}
    return SceneSplit([row | names | {"activity": rng.random((201, 14))} for row in rows])


def test_load_takes_the_activity_of_the_chosen_events(timed):
    data = device_data.load(timed, EVENTS)
    np.testing.assert_array_equal(data["activity"][4], timed[4]["activity"][:, EVENTS])


@pytest.mark.parametrize("kind", ["split", "timed"])
def test_streamed_batches_are_the_resident_ones(kind, request):
    split = request.getfixturevalue(kind)
    indices = batches.train_indices(len(split), 8, seed=3, epoch=2)
    data = device_data.load(split, EVENTS)
    streamed = list(device_data.local_batches(split, EVENTS, indices))
    assert len(streamed) == len(indices) == 3
    for batch, chosen in zip(streamed, indices, strict=True):
        assert batch.keys() == data.keys()
        for name, x in batch.items():
            np.testing.assert_array_equal(x, data[name][chosen])


def test_streamed_batches_lie_on_the_devices_as_resident_ones(split, monkeypatch):
    """Of two processes with two devices each, the second gets the second half, device by device."""
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    indices = batches.train_indices(len(split), 8, seed=0, epoch=0)
    share = local_share(indices)
    np.testing.assert_array_equal(share[0], indices[:, 4:6])
    np.testing.assert_array_equal(share[1], indices[:, 6:8])
    data = device_data.load(split, EVENTS)
    for batch, chosen in zip(
        device_data.local_batches(split, EVENTS, indices), indices[:, 4:], strict=True
    ):
        np.testing.assert_array_equal(batch["scene"], data["scene"][chosen])


def test_resident_when_set_or_when_it_fits(split, monkeypatch):
    assert device_data.is_resident("always", split) and not device_data.is_resident("never", split)
    needed = len(split) * 201 * 64 * 4 * jax.local_device_count()
    if jax.default_backend() == "cpu":
        monkeypatch.setattr(device_data, "CPU_BYTES", needed)
        assert device_data.is_resident("auto", split)
        monkeypatch.setattr(device_data, "CPU_BYTES", needed - 1)
        assert not device_data.is_resident("auto", split)


def test_on_an_accelerator_half_of_its_memory_is_the_limit(split, monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": limit}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    limit = 2 * len(split) * 201 * 64 * 4
    assert device_data.is_resident("auto", split)
    limit -= 2
    assert not device_data.is_resident("auto", split)


def test_band_statistics_are_those_of_all_frames(split):
    mean, std = device_data.band_statistics(split)
    frames = device_data.load(split, EVENTS)["log_mel"].reshape(-1, 64).astype(np.float64)
    np.testing.assert_allclose(mean, frames.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(std, frames.std(axis=0), rtol=1e-5)


def test_a_band_that_never_changes_is_not_divided_by_zero():
    clips = [{"log_mel": np.stack([np.full(5, -80.1), np.arange(5)], axis=1)} for _ in range(3)]
    mean, std = device_data.band_statistics(clips)
    np.testing.assert_allclose(mean, [-80.1, 2], rtol=1e-6)
    np.testing.assert_allclose(std, [1, np.sqrt(2)], rtol=1e-6)
