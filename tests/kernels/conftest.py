"""The forms that kernels take on a GPU or TPU, run on a CPU."""

import jax
import pytest

from ergl_jax.kernels import convolution, lanes


@pytest.fixture
def gpu_forms(monkeypatch):
    def on_gpu(*args, default, cpu=None, tpu=None):
        return default(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", on_gpu)
    # A CPU stores every array in its own order.
    monkeypatch.setattr(convolution, "with_layout_constraint", lambda x, layout: x)


@pytest.fixture
def tpu_forms(monkeypatch):
    def on_tpu(*args, default, cpu=None, tpu=None):
        return (tpu or default)(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", on_tpu)
    # A CPU stores every array in its own order.
    monkeypatch.setattr(lanes, "with_layout_constraint", lambda x, layout: x)
