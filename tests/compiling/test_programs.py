"""Training compiles for TPUs and GPUs, with what it must have inside and nothing else.

Needs their compilers: `pip install ".[tpu-compile]"`, `".[cuda-compile]"`.
"""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from ergl_jax import bundle as bundles
from ergl_jax.audio import get_front_end
from ergl_jax.audio.features import log_mel
from ergl_jax.compiling import chips, program_text
from ergl_jax.inference import export
from ergl_jax.kernels.devices import shard_clips
from ergl_jax.models.panns import PANN, Encoder
from ergl_jax.training import step

pytestmark = pytest.mark.slow
tpu = pytest.mark.skipif(not chips.has_compiler("tpu"), reason="needs libtpu")
cuda = pytest.mark.skipif(not chips.has_compiler("cuda"), reason="needs jax-cuda12-plugin")
TOPOLOGIES = [
    pytest.param("v5e:2x2", marks=tpu),
    pytest.param("v5p:2x2x1", marks=tpu),
    pytest.param("h100:4", marks=cuda),
]


@pytest.fixture(scope="module", params=TOPOLOGIES)
def compiled(request, programs):
    """Step and epoch for four chips."""
    _, devices = chips.open_topology(request.param)
    found = programs(devices)
    return found, {"step": found.step(16), "epoch": found.epoch(16, clips=64)}


def test_gradients_and_statistics_are_averaged_once(compiled):
    """All gradients and metrics in a few all-reduces; BatchNorm's means, forward and backward."""
    programs, each = compiled
    state = jax.tree.leaves(programs.state.params)
    norms = len(jax.tree.leaves(programs.state.batch_stats)) // 2
    for program in each.values():
        found = program_text.collectives(program.text)
        assert set(found) == {"all-reduce"}
        number, size = found["all-reduce"]
        assert number <= 2 * norms + 3
        parameters = sum(x.size for x in state)
        assert 4 * parameters <= size < 4 * parameters + 64 * 1024


def test_the_state_is_donated_whole(compiled):
    programs, each = compiled
    for program in each.values():
        assert program_text.aliased(program.text) == len(jax.tree.leaves(programs.state))


def test_arithmetic_is_in_bfloat16_and_nothing_is_wider_than_float32(compiled):
    """Convolutions as the program asks for them, before a compiler merges and renames them."""
    _, each = compiled
    for program in each.values():
        assert not re.search(r"\b[fc]64\[|\bc128\[", program.text)
        asked = program.lowered.as_text()
        convolutions = re.findall(r"stablehlo\.convolution.* : (\(.*\) -> tensor<.*?>)", asked)
        types = {kind for one in convolutions for kind in re.findall(r"x([a-z]+\d+)>", one)}
        assert len(convolutions) > 10 and types == {"bf16"}


def test_the_host_is_left_alone(compiled):
    _, each = compiled
    for program in each.values():
        kinds = {operation.kind for operation in program_text.operations(program.text)}
        assert not kinds & {"infeed", "outfeed", "send", "recv"}
        assert "callback" not in program.text


@tpu
def test_a_slice_of_256_chips(programs, config):
    _, devices = chips.open_topology("v5e:16x16")
    program = programs(devices).step(1024)
    assert len(devices) == 256 and set(program_text.collectives(program.text)) == {"all-reduce"}


@pytest.fixture
def tpu_chip():
    _, devices = chips.open_topology("v5e:1x1")
    return devices[0]


@tpu
def test_prediction_for_a_tpu(programs, tpu_chip):
    found = programs([tpu_chip])
    variables = {"params": found.state.params, "batch_stats": found.state.batch_stats}
    mapped = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype),
        (variables, found.data(4)["log_mel"]),
    )
    assert step.predict_program(found.model, [tpu_chip]).lower(*mapped).compile().as_text()


@tpu
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


@tpu
def test_an_exported_model_for_a_tpu(tmp_path, tiny, tpu_chip):
    bundle = bundles.load(tiny.workdir / "bundle")
    call, description = export.load(export.write(bundle, tmp_path / "export").path)
    shape = (2, *description["input"]["log_mel"][1:])
    program = jax.jit(call, in_shardings=SingleDeviceSharding(tpu_chip))
    assert program.lower(jax.ShapeDtypeStruct(shape, jnp.float32)).compile().as_text()
