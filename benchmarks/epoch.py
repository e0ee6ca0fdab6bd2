"""A whole epoch of the quickstart beside PyTorch's.

    python benchmarks/epoch.py

600 clips that lie in memory, 37 steps of 16, dropout as configured, no augmentation: as
`train_step.py`, in whose words the two are made. Prints a Markdown table.
"""

import argparse
import functools

import harness
import numpy as np
import torch_ergl
import train_step
from torch.utils.flop_counter import FlopCounterMode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--clips", type=int, default=600)
    add("--rounds", type=int, default=7)
    add("--cpu-devices", type=int, default=2, help="that JAX makes of the CPU")
    options = parser.parse_args()
    harness.use_cpu_as_training_does(options.cpu_devices)
    setting = harness.setting("quickstart")
    dtype = "bfloat16" if torch_ergl.device() == "cuda" else "float32"
    rows = np.random.default_rng(0).permutation(options.clips).astype(np.int32)
    rows = rows[: options.clips // setting.batch * setting.batch].reshape(-1, setting.batch)
    data = train_step.draw(setting, options.clips)
    arguments = (setting, train_step.first_variables(setting), data, rows, dtype)
    with FlopCounterMode(display=False) as counter:
        train_step.with_torch(setting, arguments[1], data, rows[:1], dtype)
    found = harness.beside(
        {
            "ergl_jax": functools.partial(train_step.with_jax, *arguments),
            "PyTorch eager, channels_last": functools.partial(train_step.with_torch, *arguments),
            "PyTorch compiled, channels_last": functools.partial(
                train_step.with_torch, *arguments, mode="default"
            ),
        },
        rounds=options.rounds,
        clips=rows.size,
        flops=counter.get_total_flops() * len(rows),
        peak_tflops=None,
    )
    print(harness.table([f"{len(rows)} steps of {setting.batch}", *harness.BESIDE[1:]], found))


if __name__ == "__main__":
    main()
