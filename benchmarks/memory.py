"""Peak memory of training steps against PyTorch.

    python benchmarks/memory.py

Two calls of two steps in a process of its own for each: the peak memory of that process, and its
memory before the model was built. PyTorch is eager. Linux only.
"""

import json
import resource
import sys

import harness


def child(who: str, name: str, devices: int) -> None:
    import numpy as np
    import train_step

    harness.use_cpu(devices)
    setting = harness.setting(name)
    variables = train_step.initial_variables(setting)
    rows = np.arange(2 * setting.batch, dtype=np.int32).reshape(2, setting.batch)
    data = train_step.draw(setting, rows.size)
    make = {"ergl_jax": train_step.with_jax, "PyTorch": train_step.with_torch}[who]
    before = harness.resident_bytes("VmRSS:")
    make(setting, variables, data, rows, "float32")()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps([before, peak]))


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:4], int(sys.argv[4]))
        return
    parser = harness.parser(__doc__)
    parser.add_argument("--settings", nargs="+", default=harness.SETTINGS, choices=harness.SETTINGS)
    rows = []
    for name in parser.parse_args().settings:
        devices = "1" if name == "paper" else "2"
        row, peaks = [name], []
        for who in ("ergl_jax", "PyTorch"):
            before, peak = harness.run_script(__file__, "--child", who, name, devices)
            row.append(f"{peak / 1e9:.2f} GB ({before / 1e9:.2f} before)")
            peaks.append(peak)
        rows.append([*row, f"{peaks[0] / peaks[1]:.2f}"])
    print(harness.table(["setting", "ergl_jax", "PyTorch eager", "ratio"], rows))


if __name__ == "__main__":
    harness.start(main)
