"""Training compiles for TPUs and GPUs, with the expected collectives, donation and dtypes.

Needs their compilers: `pip install ".[tpu-compile]"`, `".[cuda-compile]"`.
"""

import re

import jax
import pytest

from ergl_jax.compiling import chips, program_text

pytestmark = pytest.mark.slow
tpu = pytest.mark.skipif(not chips.has_compiler("tpu"), reason="needs libtpu")
cuda = pytest.mark.skipif(not chips.has_compiler("cuda"), reason="needs JAX's CUDA plugin")
TOPOLOGIES = [
    pytest.param("v5e:2x2", marks=tpu),
    pytest.param("h100:4", marks=cuda),
]


@pytest.fixture(scope="module", params=TOPOLOGIES)
def compiled(request, programs):
    """An epoch for four chips, for GPUs a step too: TPU's slow compiler has it in the epoch."""
    _, devices = chips.open_topology(request.param)
    found = programs(devices)
    each = {"epoch": found.epoch(16, clips=64)}
    return found, each if "v5e" in request.param else each | {"step": found.step(16)}


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


@tpu
def test_a_topology_of_three_axes():
    _, devices = chips.open_topology("v5p:2x2x1")
    assert len(devices) == 4
