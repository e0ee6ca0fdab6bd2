"""Nothing is left behind: memory, objects, threads and files while the same is done over and over.

The long measurement is benchmarks/leaks.py, whose samples these are.
"""

import gc
import threading

import jax.numpy as jnp
import numpy as np
import pytest

WARM = 10  # times after which caches and pools are there
LENT, OBJECTS = 16 << 10, 100  # what may stay a time: bytes, and Python's objects
# Beside these: TensorStore loses some 4 small objects for each array that Orbax saves, and TFDS
# keeps what it read of a dataset's description, 30 KiB, for each time that one is opened. Far from
# a batch of the small run, which has 400 KiB, or one state more each time.
KEPT = {"lent": 64 << 10, "objects": 1500}


@pytest.fixture(scope="module")
def leaks(load_script):
    yield load_script("benchmarks/leaks.py")
    gc.unfreeze()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def growth(samples, field):
    """What stays a time: the median, which hears no pool that grows once or comes and goes."""
    return np.median(np.diff([getattr(each, field) for each in samples]))


def grown(samples, lent=LENT, objects=OBJECTS):
    """What of a Sample did not stay, by name."""
    first, last, found = samples[WARM], samples[-1], set()
    if growth(samples[WARM:], "lent") > lent:
        found.add("lent")
    if growth(samples[WARM:], "objects") > objects:
        found.add("objects")
    if last.arrays > first.arrays or last.device > first.device:
        found.add("arrays")
    for field in ("threads", "files"):
        before = max(getattr(each, field) for each in samples[: WARM + 1])
        if getattr(last, field) > before + 2:  # a pool's own
            found.add(field)
    return found


def nothing():
    return [np.zeros(1000) for _ in range(10)]


LEAKS = {
    "lent": lambda: np.ones(LENT * 2, np.uint8),
    "objects": lambda: [object() for _ in range(2 * OBJECTS)],
    "arrays": lambda: jnp.zeros(1),
    "files": lambda: open(__file__),  # noqa: SIM115
}


@pytest.mark.parametrize("what", LEAKS)
def test_the_check_hears_a_leak(leaks, what):
    kept = []
    samples = leaks.repeat(lambda: kept.append(LEAKS[what]()), 30)
    assert what in grown(samples)
    if what == "files":
        for file in kept:
            file.close()
    assert grown(leaks.repeat(nothing, 30)) == set()


def test_the_check_hears_a_thread(leaks):
    end = threading.Event()
    samples = leaks.repeat(lambda: threading.Thread(target=end.wait).start(), 30)
    end.set()
    assert "threads" in grown(samples)


def test_epochs_keep_nothing(leaks, data_dir, tmp_path):
    """Streamed, validated and saved; the last sample is of after the run's end."""
    samples = leaks.train(tmp_path / "run", data_dir, 28, "never")
    assert len(samples) == 29 and grown(samples[:-1], **KEPT) == set()


def test_a_run_leaves_no_thread_no_file_and_no_array(leaks, data_dir, tmp_path):
    def run(number):
        leaks.train(tmp_path / str(number), data_dir, 2, "always" if number % 2 else "never")
        return leaks.sample(), {each.name for each in threading.enumerate()}

    run(0)  # pools come with their first use
    (first, threads), (last, left) = run(1), run(2)
    assert left <= threads
    assert last.files <= first.files and last.threads <= first.threads + 2
    assert last.arrays <= first.arrays


def test_classifications_keep_nothing(leaks, tiny):
    assert grown(leaks.classify(tiny.workdir / "bundle", 50)) == set()


def test_openings_of_a_dataset_keep_no_rows(leaks, data_dir):
    assert grown(leaks.open_dataset(data_dir, 40), **KEPT) == set()


def test_the_check_hears_a_batch(leaks):
    kept = []
    samples = leaks.repeat(lambda: kept.append(np.ones((8, 201, 64), np.float32)), 28)
    assert grown(samples, **KEPT) == {"lent"}
