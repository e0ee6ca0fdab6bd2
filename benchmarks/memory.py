"""Peak memory of training steps beside PyTorch's.

    python benchmarks/memory.py

Two calls of two steps, in a process of its own for each: the most memory that it ever had, and what
it had before the model was there. PyTorch is eager. Linux only. Prints a Markdown table.
"""

import argparse
import json
import os
import resource
import sys

import harness


def child(who: str, name: str, devices: int) -> None:
    import numpy as np
    import train_step

    harness.use_cpu_as_training_does(devices)
    setting = harness.setting(name)
    variables = train_step.first_variables(setting)
    rows = np.arange(2 * setting.batch, dtype=np.int32).reshape(2, setting.batch)
    data = train_step.draw(setting, rows.size)
    make = {"ergl_jax": train_step.with_jax, "PyTorch": train_step.with_torch}[who]
    before = harness.kilobytes("VmRSS:")
    make(setting, variables, data, rows, "float32")()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([before, peak]))


def measure(who: str, name: str, devices: int) -> list[int]:
    """Kilobytes (before, at most)."""
    arguments = ("--child", who, name, str(devices))
    return harness.told_by(__file__, *arguments, environment=dict(os.environ))


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:4], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", nargs="+", default=harness.SETTINGS)
    options = parser.parse_args()
    rows = []
    for name in options.settings:
        devices = 1 if name == "paper" else 2
        ours, theirs = (measure(who, name, devices) for who in ("ergl_jax", "PyTorch"))
        row = [
            name,
            *(
                f"{peak / 1e6:.2f} GB ({before / 1e6:.2f} before)"
                for before, peak in (ours, theirs)
            ),
        ]
        rows.append([*row, f"{ours[1] / theirs[1]:.2f}"])
    print(harness.table(["setting", "ergl_jax", "PyTorch eager", "ratio"], rows))


if __name__ == "__main__":
    main()
