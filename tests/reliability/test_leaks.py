"""Repeated work leaves no memory, objects, threads or files behind.

benchmarks/leaks.py measures the same for longer.
"""

import gc
import threading

import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.slow
WARM = 10  # repetitions until caches and thread pools are filled
LENT, OBJECTS = 16 << 10, 100  # allowed growth per repetition: bytes, Python objects
# For runs and datasets: TensorStore loses about 4 small objects for each array that Orbax saves,
# and TFDS 30 KiB whenever a dataset is opened. A batch of the small run has 400 KiB.
ALLOWED = {"lent": 64 << 10, "objects": 1500}


@pytest.fixture(scope="module")
def leaks(load_script):
    yield load_script("benchmarks/leaks.py")
    gc.unfreeze()


def grown(samples, lent=LENT, objects=OBJECTS):
    """The fields of a Sample that grew."""
    first, last, found = samples[WARM], samples[-1], set()
    for field, allowed in (("lent", lent), ("objects", objects)):
        # The median ignores a pool that grows once.
        if np.median(np.diff([getattr(each, field) for each in samples[WARM:]])) > allowed:
            found.add(field)
    if last.arrays > first.arrays or last.device > first.device:
        found.add("arrays")
    for field in ("threads", "files"):
        before = max(getattr(each, field) for each in samples[: WARM + 1])
        if getattr(last, field) > before + 2:  # a pool's own
            found.add(field)
    return found


def test_the_check_finds_leaks(leaks):
    end, kept = threading.Event(), []
    for field, leak in {
        "lent": lambda: kept.append(np.ones(LENT * 2, np.uint8)),
        "objects": lambda: kept.append([object() for _ in range(2 * OBJECTS)]),
        "arrays": lambda: kept.append(jnp.zeros(1)),
        "files": lambda: kept.append(open(__file__)),  # noqa: SIM115
        "threads": lambda: threading.Thread(target=end.wait).start(),
    }.items():
        assert field in grown(leaks.repeat(leak, 30)), field
        if field == "files":
            for file in kept[-30:]:
                file.close()
    end.set()
    batches = leaks.repeat(lambda: kept.append(np.ones((8, 201, 64), np.float32)), 28)
    assert grown(batches, **ALLOWED) == {"lent"}
    assert grown(leaks.repeat(lambda: [np.zeros(1000) for _ in range(10)], 30)) == set()


def test_training_leaves_nothing(leaks, tmp_path):
    """Streamed, validated and saved; the last sample of a run is taken after its end."""
    samples = leaks.train(tmp_path / "run", tmp_path / "data", 28, "never")
    assert len(samples) == 29 and grown(samples[:-1], **ALLOWED) == set()
    threads = {each.name for each in threading.enumerate()}
    leaks.train(tmp_path / "another", tmp_path / "data", 2, "always")
    last = leaks.sample()
    assert {each.name for each in threading.enumerate()} <= threads
    assert last.files <= samples[-1].files and last.threads <= samples[-1].threads + 2
    assert last.arrays <= samples[-1].arrays
    assert grown(leaks.open_dataset(tmp_path / "data", 40), **ALLOWED) == set()


def test_classification_leaves_nothing(leaks, tiny):
    assert grown(leaks.classify(tiny.workdir / "bundle", 50)) == set()
