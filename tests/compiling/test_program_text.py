"""Parsing of a program's text, on small programs of known content."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from ergl_jax.compiling import program_text

# As TPU's compiler prints them: tiles and memory spaces within the layout.
TEXT = """HloModule jit_f, input_output_alias={ {0}: (1, {}, may-alias), {1}: (2, {}, must-alias) }

ENTRY %main (a: bf16[8,4]) -> (bf16[8,4], f32[2]) {
  %a = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %same = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} copy(%a), metadata={op_name="jit(f)/x"}
  %turned = bf16[8,4]{0,1:T(8,128)(2,1)} copy(%a)
  %sum = (f32[2]{0:T(128)}, f32[3,5]{1,0:T(128)}) all-reduce-start(%x, %y), channel_id=1
  ROOT %done = (f32[2]{0}, f32[3,5]{1,0}) all-reduce-done(%sum)
}
"""


def test_a_tpu_program():
    assert program_text.collectives(TEXT) == {"all-reduce": (1, 4 * (2 + 15))}
    assert program_text.layout_copies(TEXT) == (1, 2 * 2 * 32)  # read and written
    assert program_text.aliased(TEXT) == 2


@pytest.mark.parametrize(
    "type, size",
    [("f32[]", 4), ("bf16[3,5]{1,0}", 30), ("(s32[2]{0}, pred[7]{0})", 15), ("u8[0]{0}", 0)],
)
def test_bytes_of_a_type(type, size):
    assert program_text.size(type) == size


def test_a_compiled_program_of_this_machine():
    """One mean over devices, of a donated vector."""
    mesh = Mesh(np.array(jax.devices()), ("d",))
    split = PartitionSpec("d")
    mean = jax.shard_map(
        lambda x: jax.lax.pmean(x, "d"), mesh=mesh, in_specs=split, out_specs=split
    )
    x = jax.ShapeDtypeStruct((len(jax.devices()), 6), jnp.float32)
    text = jax.jit(mean, donate_argnums=0).lower(x).compile().as_text()
    assert program_text.collectives(text) == {"all-reduce": (1, 4 * 6)}
    assert program_text.aliased(text) == 1
