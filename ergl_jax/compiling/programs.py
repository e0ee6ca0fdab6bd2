"""Training's programs, compiled for chips that this machine need not have.

Shapes: d devices, B clips of a batch, S steps, N clips of the training split, F frames, M mel bins.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ergl_jax.audio import get_front_end
from ergl_jax.config import Config
from ergl_jax.systems import SYSTEMS
from ergl_jax.training import step
from ergl_jax.training.build import build

# Autotuning and Triton GEMMs can't be compiled without a GPU.
_GPU_OPTIONS = {"xla_gpu_autotune_level": "0", "xla_gpu_enable_triton_gemm": "False"}


class Sizes(NamedTuple):
    """Sizes that a dataset sets; `clips` are those of the training split."""

    scenes: int
    events: int
    clips: int


class Programs:
    """The programs of a run of `config` on `devices`, and their input shapes."""

    def __init__(self, config: Config, sizes: Sizes, devices: Sequence[jax.Device]):
        self.config, self.sizes, self.devices = config, sizes, devices
        front_end = get_front_end(config.data.front_end)
        self.clip = front_end.shape(config.data.clip_seconds)  # (F, M)
        n = sizes.events if SYSTEMS[config.model.name].events else 0
        self.model, self.adamw, _, self.trainer = build(
            config,
            scene=np.arange(sizes.clips) % sizes.scenes,
            events=np.zeros((sizes.clips, n)),
            num_scenes=sizes.scenes,
            devices=devices,
        )
        self.events = n

    @cached_property
    def state(self) -> step.TrainState:
        """Shapes of the state on one device."""
        config, model, clip = self.config, self.model, self.clip
        init = partial(step.init_state, model, self.adamw, seed=config.seed, shape=clip)
        state = jax.eval_shape(init)
        step.check_crop(model, state, shape=clip, crop=config.augment.crop)
        return state

    def data(self, clips: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a split of `clips` clips, or of a batch."""
        shapes = {
            "log_mel": jax.ShapeDtypeStruct((clips, *self.clip), jnp.float32),
            "scene": jax.ShapeDtypeStruct((clips,), jnp.int32),
            "events": jax.ShapeDtypeStruct((clips, self.events), jnp.float32),
        }
        if self.config.data.annotations:
            frames = (clips, self.clip[0], self.events)
            shapes["activity"] = jax.ShapeDtypeStruct(frames, jnp.float32)
        return shapes

    def step(self, batch_size: int) -> "Program":
        """One step whose batch comes from the host."""
        share = batch_size // len(self.devices)
        return self._compile(self.trainer.step_program, self.state, self.data(share))

    def epoch(self, batch_size: int, clips: int) -> "Program":
        """A scanned epoch over a split of `clips` clips in each device's memory."""
        share = batch_size // len(self.devices)
        indices = jax.ShapeDtypeStruct((max(1, clips // batch_size), share), jnp.int32)
        return self._compile(self.trainer.scan_program, self.state, self.data(clips), indices)

    def _compile(self, program: Any, *arguments: Any) -> "Program":
        key = jax.eval_shape(lambda: jax.random.key(0))
        number = len(self.devices)
        mapped = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((number, *x.shape), x.dtype), (key, *arguments)
        )
        begin = time.perf_counter()
        lowered = program.lower(*mapped)
        options = _GPU_OPTIONS if self.devices[0].platform != "tpu" else None
        try:
            compiled = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise OutOfMemory(_reason(str(error))) from error
            raise
        return Program(lowered, compiled, time.perf_counter() - begin)


class OutOfMemory(Exception):
    """The compiler found no way to run the program in the chip's memory."""


def _reason(message: str) -> str:
    """XLA's memory figures in an error, such as "Used 17.50G of 15.75G hbm"."""
    match = re.search(r"Used \S+ of \S+ \w+", message)
    return match[0] if match else message.splitlines()[0]


@dataclass(frozen=True)
class Program:
    """A compiled program; figures are of one device."""

    lowered: Any
    compiled: Any
    seconds: float  # to lower and compile

    @cached_property
    def text(self) -> str:
        return self.compiled.as_text()

    def memory(self) -> dict[str, int]:
        """Bytes of arguments, results, aliased buffers, temporaries, generated code, peak."""
        found = self.compiled.memory_analysis()
        names = ("argument", "output", "alias", "temp", "generated_code")
        sizes = {name: int(getattr(found, f"{name}_size_in_bytes")) for name in names}
        peak = sizes["argument"] + sizes["output"] - sizes["alias"] + sizes["temp"]
        return sizes | {"peak": peak + sizes["generated_code"]}

    def costs(self) -> tuple[float, float]:
        """FLOPs, and bytes read and written by all operations: XLA's counts."""
        found = self.compiled.cost_analysis()
        if found:
            return found["flops"], found["bytes accessed"]
        # None for a GPU: count FLOPs before optimisation, bytes after it.
        from jax._src.lib import _jax

        cpu = jax.local_devices(backend="cpu")[0].client
        plain = self.lowered.compiler_ir("hlo").as_hlo_module()
        (optimised,) = self.compiled.runtime_executable().hlo_modules()
        count = _jax.hlo_module_cost_analysis
        return count(cpu, plain)["flops"], count(cpu, optimised)["bytes accessed"]
