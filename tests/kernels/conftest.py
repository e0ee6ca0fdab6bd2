"""The forms that kernels take on a TPU, run on a CPU."""

import jax
import pytest

from ergl_jax.kernels import lanes


@pytest.fixture
def tpu_forms(monkeypatch):
    def on_tpu(*args, default, cpu=None, tpu=None):
        return (tpu or default)(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", on_tpu)
    # A CPU stores every array in its own order.
    monkeypatch.setattr(lanes, "with_layout_constraint", lambda x, layout: x)
