"""What all tests share: compiled programs, and one tiny run from configuration to bundle."""

import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling is most of the tests' time. LLVM does little, as in JAX's own tests; programs are kept
# for the session, its subprocesses included, and not beyond it.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
_CACHE = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _CACHE = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ergl_jax_xla_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import dataclasses  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402


def pytest_unconfigure():
    if _CACHE:
        shutil.rmtree(_CACHE, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class TinyRun:
    workdir: Path
    data_dir: Path
    results: dict  # what `loop.train` returned

    def config(self, **overrides):
        """configs/test.py with this run's features, and fields such as data__num_events=3."""
        from configs import test

        config = test.get_config()
        config.data.data_dir = str(self.data_dir)
        config.update_from_flattened_dict(
            {name.replace("__", "."): value for name, value in overrides.items()}
        )
        return config


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> TinyRun:
    """configs/test.py, trained to its end, uninterrupted. Not to be written to."""
    from ergl_jax.training import loop

    base = tmp_path_factory.mktemp("tiny")
    run = TinyRun(base / "run", base / "data", {})
    return dataclasses.replace(run, results=loop.train(run.config(), run.workdir))
