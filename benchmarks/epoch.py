"""A whole epoch of the quickstart against PyTorch.

    python benchmarks/epoch.py

600 clips in memory, 37 steps of 16, dropout as configured, no augmentation; otherwise as
`train_step.py`.
"""

from functools import partial

import harness
import numpy as np
import torch_ergl
import train_step
from torch.utils.flop_counter import FlopCounterMode


def main() -> None:
    parser = harness.parser(__doc__, rounds=7)
    parser.add_argument("--clips", type=harness.positive, default=600)
    parser.add_argument("--cpu-devices", type=harness.positive, default=2)
    options = parser.parse_args()
    harness.use_cpu(options.cpu_devices)
    setting = harness.setting("quickstart")
    if options.clips < setting.batch:
        parser.error(f"--clips={options.clips} is less than a batch of {setting.batch}")
    dtype = "bfloat16" if torch_ergl.device() == "cuda" else "float32"
    rows = np.random.default_rng(0).permutation(options.clips).astype(np.int32)
    rows = rows[: options.clips // setting.batch * setting.batch].reshape(-1, setting.batch)
    data = train_step.draw(setting, options.clips)
    arguments = (setting, train_step.initial_variables(setting), data, rows, dtype)
    with FlopCounterMode(display=False) as counter:
        train_step.with_torch(*arguments[:3], rows[:1], dtype)
    found = harness.compare(
        {
            "ergl_jax": partial(train_step.with_jax, *arguments),
            "PyTorch eager, channels_last": partial(train_step.with_torch, *arguments),
            "PyTorch compiled, channels_last": partial(
                train_step.with_torch, *arguments, mode="default"
            ),
        },
        rounds=options.rounds,
        clips=rows.size,
        flops=counter.get_total_flops() * len(rows),
    )
    print(harness.table([f"{len(rows)} steps of {setting.batch}", *harness.COMPARED[1:]], found))


if __name__ == "__main__":
    harness.start(main)
