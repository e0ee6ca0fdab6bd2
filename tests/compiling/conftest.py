"""A tiny run in bfloat16, and chips to compile it for."""

import pytest

from configs import test as test_config
from ergl_jax.compiling.programs import Programs, Sizes
from ergl_jax.config import Config


@pytest.fixture(scope="session")
def config():
    """Batch 16; Cnn6 of two channels in its first block, four events, clips of 2 s."""
    found = test_config.get_config()
    found.model.compute_dtype, found.train.batch_size = "bfloat16", 16
    return Config.from_dict(found.to_dict())


@pytest.fixture(scope="session")
def programs(config):
    """`programs(devices)` of that run."""
    return lambda devices: Programs(config, Sizes(scenes=10, events=4, clips=64), devices)
