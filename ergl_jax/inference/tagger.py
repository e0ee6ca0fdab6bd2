"""Waveforms to event probabilities, by a bundle, on all local devices."""

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ergl_jax.audio import log_mel
from ergl_jax.bundle import Bundle
from ergl_jax.errors import InputError


class Tagger:
    """One compiled program from waveform to probabilities; the clips of a batch are shared out.

    `batch_size` is a multiple of the local devices.
    """

    def __init__(self, bundle: Bundle, batch_size: int):
        if not bundle.events:
            raise InputError("the bundle names no events: take a ported PANN (port_panns.py)")
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} must be at least 1")
        devices = jax.local_devices()
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        mesh = Mesh(np.array(devices), ("clips",))
        whole, shared = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("clips",)))
        self._variables = jax.device_put(dict(bundle.variables), whole)
        model = bundle.build()

        def run(variables, waveforms):
            output = model.apply(variables, log_mel(waveforms, bundle.front_end), train=False)
            return nn.sigmoid(output.event_logits)

        # Mapped by hand: the partitioner would gather all clips on each device for log_mel's FFT.
        run = jax.shard_map(
            run, mesh=mesh, in_specs=(whole.spec, shared.spec), out_specs=shared.spec
        )
        self._run = jax.jit(run, in_shardings=(whole, shared), out_shardings=shared)

    def __call__(self, waveforms: np.ndarray) -> jax.Array:
        """(batch_size, L) at the front end's rate -> (batch_size, n), before it is computed."""
        return self._run(self._variables, waveforms)
