"""A whole Cnn14 that tags log-mel clips of 10 s, against the same model in PyTorch.

    python benchmarks/forward.py --batches 2 8

Evaluation mode, 527 events, no gradients, without the audio front end. Probabilities are compared
before anything is timed. PyTorch's rows include BatchNorm folded into the convolutions, and
torch.compile, which folds it too (freezing). On a GPU in bfloat16 (PyTorch by autocast), else in
float32.
"""

import argparse
import dataclasses
import os
from functools import partial

# Else JAX takes most of the GPU's memory, and PyTorch has none.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import harness  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch_ergl  # noqa: E402
from torch.nn.utils.fusion import fuse_conv_bn_eval  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from ergl_jax import registry  # noqa: E402

EVENTS, FRAMES = 527, 1001
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}  # of probabilities


def fold_batch_norm(model: torch_ergl.PANN) -> None:
    """Folds BatchNorm into the convolutions before it, as for deployment."""
    for block in model.encoder.blocks:
        for number, pair in enumerate(zip(block.convs, block.norms, strict=True)):
            block.convs[number] = fuse_conv_bn_eval(*pair)
            block.norms[number] = torch.nn.Identity()


def with_jax(config, variables, log_mel):
    """A call that returns probabilities (B, 527)."""
    model = registry.build(config, num_scenes=0, num_events=EVENTS)
    run = jax.jit(lambda v, x: jax.nn.sigmoid(model.apply(v, x, train=False).event_logits))
    variables = jax.device_put(variables)

    def call():
        return np.asarray(run(variables, log_mel))

    call()
    return call


def with_torch(config, variables, log_mel, *, layout=torch.channels_last, folded=False, how=None):
    """The same in PyTorch; `how` are torch.compile's options, None is eager."""
    model, device = torch_ergl.PANN(config, num_events=EVENTS).eval(), torch_ergl.device()
    torch_ergl.load(model, variables)
    if folded:
        fold_batch_norm(model)
    model = model.requires_grad_(False).to(device, memory_format=layout)
    if how is not None:
        model = torch.compile(model, options=how, dynamic=False)

    @torch.no_grad()  # inference_mode is no faster, and freezing rejects its tensors
    def call():
        with torch.autocast(device, torch.bfloat16, enabled=config.compute_dtype == "bfloat16"):
            logits = model(torch.from_numpy(log_mel).to(device))
        return logits.float().sigmoid().cpu().numpy()

    call()
    return call


def rows_of(batch: int, options) -> list[list]:
    torch.compiler.reset()
    config = dataclasses.replace(
        harness.setting("paper").config.model,
        name="pann",
        compute_dtype="bfloat16" if torch_ergl.device() == "cuda" else "float32",
    )
    model = registry.build(config, num_scenes=0, num_events=EVENTS)
    noise = np.random.default_rng(0).standard_normal((batch, FRAMES, 64))
    log_mel = np.float32(-40 + 15 * noise)
    variables = jax.device_get(
        jax.jit(partial(model.init, train=False))(jax.random.key(0), log_mel[:1])
    )
    # The statistics of the input: with the initial ones, values in dB saturate everything.
    norm = variables["batch_stats"]["encoder"]["BatchNorm_0"]
    norm["mean"], norm["var"] = norm["mean"] - 40, norm["var"] * 225
    arguments = (config, variables, log_mel)
    eager = with_torch(*arguments, layout=torch.contiguous_format)
    with FlopCounterMode(display=False) as counter:
        expected = eager()
    ours = with_jax(*arguments)
    difference = np.abs(ours() - expected).max()
    print(f"Probabilities differ by {difference:.1e}, and vary by {expected.std():.1e}\n")
    if not difference < TOLERANCES[config.compute_dtype]:
        raise SystemExit("the two models differ: nothing is timed")
    makers = {
        "ergl_jax": lambda: ours,
        "PyTorch eager": lambda: eager,
        "PyTorch eager, channels_last": partial(with_torch, *arguments),
        "PyTorch eager, channels_last, BatchNorm folded": partial(
            with_torch, *arguments, folded=True
        ),
    }
    if options.compile:
        makers["PyTorch compiled, channels_last, frozen"] = partial(
            with_torch, *arguments, how={"freezing": True}
        )
    found = harness.compare(
        makers,
        rounds=options.rounds,
        clips=batch,
        flops=counter.get_total_flops(),
        peak_tflops=options.peak_tflops,
    )
    return [[f"{batch} x {FRAMES}, {config.compute_dtype}", *row] for row in found]


def main() -> None:
    parser = harness.parser(__doc__, rounds=7)
    add = parser.add_argument
    add("--batches", type=harness.positive, nargs="+", default=[2, 8])
    add("--compile", action=argparse.BooleanOptionalAction, default=True)
    add("--peak-tflops", type=float, help="of the device: adds the share of it in %%")
    options = parser.parse_args()
    harness.use_cpu(1, training=False)
    rows = [row for batch in options.batches for row in rows_of(batch, options)]
    print(harness.table(["clips x frames", *harness.COMPARED], rows))


if __name__ == "__main__":
    harness.start(main)
