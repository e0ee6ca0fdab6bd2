"""Inference compiles for a TPU: prediction, log-mel, tagging, exports."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from ergl_jax import bundle as bundles
from ergl_jax.audio import get_front_end
from ergl_jax.audio.features import log_mel
from ergl_jax.compiling import chips
from ergl_jax.inference import export
from ergl_jax.kernels.devices import shard_clips
from ergl_jax.models.panns import PANN, Encoder
from ergl_jax.training import step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not chips.has_compiler("tpu"), reason="needs libtpu"),
]


@pytest.fixture
def tpu_chip():
    _, devices = chips.open_topology("v5e:1x1")
    return devices[0]


def test_prediction_for_a_tpu(programs, tpu_chip):
    found = programs([tpu_chip])
    variables = {"params": found.state.params, "batch_stats": found.state.batch_stats}
    mapped = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype),
        (variables, found.data(4)["log_mel"]),
    )
    assert step.predict_program(found.model, [tpu_chip]).lower(*mapped).compile().as_text()


def test_log_mel_and_tagging_for_a_tpu(tpu_chip):
    """As pseudo-labelling maps them: waveforms to probabilities, clips spread over chips."""
    front_end = get_front_end("paper")
    model = PANN(4, Encoder(width_divisor=32), 0.5)
    variables = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64)), train=False)
    )

    def tag(variables, waveforms):
        logits = model.apply(variables, log_mel(waveforms, front_end), train=False).event_logits
        return jax.nn.sigmoid(logits)

    run, shardings = shard_clips(tag, 2, [tpu_chip])
    waveforms = jax.ShapeDtypeStruct((2, front_end.sample_rate), jnp.float32)
    program = jax.jit(run, in_shardings=shardings, out_shardings=shardings[1])
    assert program.lower(variables, waveforms).compile().as_text()


def test_an_exported_model_for_a_tpu(tmp_path, tiny, tpu_chip):
    bundle = bundles.load(tiny.workdir / "bundle")
    written = export.write(bundle, tmp_path / "export")
    call = jax.export.deserialize(bytearray(written.path.read_bytes())).call
    shape = (2, *written.description["input"]["log_mel"][1:])
    program = jax.jit(call, in_shardings=SingleDeviceSharding(tpu_chip))
    assert program.lower(jax.ShapeDtypeStruct(shape, jnp.float32)).compile().as_text()
