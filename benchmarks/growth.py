"""How a training step's time and memory grow with events, layers, clip length, batch, devices.

    python benchmarks/growth.py --sweep events --values 10,25,50,100,200,400
    python benchmarks/growth.py --sweep layers seconds batch devices
    python benchmarks/growth.py --sweep seconds --model whole --setting quickstart

One thing grows, all else stays as the flags say. `--model head` is ERGL without its encoder, on
tokens of noise, as many as Cnn14 makes of the clip; `whole` is a setting's model on spectrograms.
Each row runs in a process of its own, by the Trainer, compiled ahead of time; devices are virtual
ones of the CPU, which share its cores. Memory, of all devices, is the larger of what XLA plans for
temporaries and, on CPU, of what the process grows by in a step. A row that plans for more than is
free is not run, and its plan is shown. A power is that of the growth from the row before: 1 is
linear, 2 quadratic. Prints a Markdown table.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys

import harness

SWEEPS = {
    "events": [10, 25, 50, 100, 200, 400],
    "layers": [1, 2, 4, 8],
    "seconds": [5, 10, 30, 60],
    "batch": [8, 64, 128, 512],
    "devices": [1, 2, 4, 8],
}


def measure(spec: dict) -> dict:
    """Seconds of a step (median) or "error", and its bytes; a process's whole work."""
    import jax
    import numpy as np

    from ergl_jax import registry
    from ergl_jax.models.ergl import GraphHead, GraphReadout
    from ergl_jax.training import optimizer
    from ergl_jax.training.step import AXIS, Trainer, _split, init_state, replicate

    harness.use_cpu_as_training_does(spec["devices"])
    gpu = jax.default_backend() == "gpu"
    setting = harness.setting(spec["setting"], gpu=gpu)
    config = setting.config.copy_and_resolve_references()
    config.model.gcn.layers = spec["layers"]
    config.model.compute_dtype = "bfloat16" if gpu else "float32"
    frames = 100 * spec["seconds"] + 1
    rng, batch = np.random.default_rng(0), spec["batch"]
    if spec["model"] == "head":
        dtype = registry.DTYPES[config.model.compute_dtype]
        readout = GraphReadout(
            setting.scenes,
            gcn_layers=spec["layers"],
            dropout=config.model.dropout,
            axis_name=AXIS,
            dtype=dtype,
        )
        model = GraphHead(readout, dtype=dtype)
        tokens = spec["tokens"] or frames // 32
        shape = (spec["events"], tokens, config.model.channels)
        x = np.maximum(rng.standard_normal((batch, *shape)), 0)
    else:
        sizes = {"num_scenes": setting.scenes, "num_events": spec["events"]}
        model = registry.build(config.model, **sizes, axis_name=AXIS)
        shape = (frames, setting.mels)
        x = -40 + 15 * rng.standard_normal((batch, *shape))
    data = {
        "log_mel": np.float32(x),  # or tokens: the Trainer gives the model what bears this name
        "scene": rng.integers(0, setting.scenes, batch),
        "events": np.float32(rng.uniform(size=(batch, spec["events"]))),
    }
    adamw = optimizer.adamw(config.optimizer, steps_per_epoch=100, epochs=config.train.epochs)
    trainer = Trainer(model, adamw, lambda key, batch: batch, num_scenes=setting.scenes, seed=0)
    state = replicate(init_state(model, adamw, seed=0, shape=shape))
    # Within the Trainer, for the plan is known only of the compiled step itself.
    data = _split(data)
    step = trainer._step.func.lower(*trainer._step.args, state, data).compile()
    planned = harness.planned(step)
    if not gpu and planned > (free := available()):
        return {"error": f"not run: {free / 1e9:.1f} GB free", "bytes": planned}

    def call():
        nonlocal state
        state, metrics = step(*trainer._step.args, state, data)
        jax.block_until_ready((state, metrics))

    call()
    needed = max(planned, harness.peak_growth(call) or 0)
    return {
        "seconds": statistics.median(harness.in_turn({"": call}, spec["rounds"])[""]),
        "bytes": needed,
    }


def available() -> int:
    """Bytes of memory that are free for programs."""
    with open("/proc/meminfo", encoding="utf-8") as file:
        line = next(line for line in file if line.startswith("MemAvailable"))
    return 1024 * int(line.split()[1])


def in_a_process(spec: dict) -> dict:
    """`measure` in a process of its own: its memory and its devices are its own."""
    command = [sys.executable, __file__, "--one", json.dumps(spec)]
    paths = [str(harness.REPOSITORY), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        check=False,
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        return {"error": f"ended by signal {-done.returncode}: out of memory?"}
    reasons = [line for line in done.stderr.splitlines() if "Error" in line]
    return {"error": reasons[-1][:160] if reasons else f"status {done.returncode}"}


def rows_of(sweep: str, values: list[int], spec: dict) -> list[list]:
    rows, last = [], None
    for value in values:
        found = in_a_process(spec | {sweep: value})
        print(f"{sweep} {value}: {found}", file=sys.stderr, flush=True)
        if "error" in found:
            plan = f"{found['bytes'] / 1e6:.1f} MB" if "bytes" in found else ""
            rows.append([sweep, value, found["error"], "", plan, ""])
            continue
        time, size = found["seconds"], found["bytes"]
        powers = ["", ""]
        if last:
            grown = math.log(value / last[0])
            powers = [
                f"{math.log(b / a) / grown:.2f}"
                for a, b in zip(last[1:], (time, size), strict=True)
            ]
        rows.append(
            [sweep, value, f"{1000 * time:.1f} ms", powers[0], f"{size / 1e6:.1f} MB", powers[1]]
        )
        last = value, time, size
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--sweep", nargs="+", default=["events"], choices=SWEEPS)
    add("--values", type=lambda text: [int(x) for x in text.split(",")], help="of the one sweep")
    add("--model", default="head", choices=["head", "whole"])
    add("--setting", default="paper", choices=harness.SETTINGS, help="encoder, width, optimiser")
    add("--tokens", type=int, help="of the head; by default as Cnn14 makes of the clip")
    for name, usual in (("events", 25), ("layers", 2), ("seconds", 10), ("batch", 8)):
        add(f"--{name}", type=int, default=usual, help="where it is not swept over")
    add("--devices", type=int, default=1, help="virtual devices of the CPU")
    add("--rounds", type=int, default=7)
    add("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    if options.values and len(options.sweep) > 1:
        parser.error("--values are of one sweep")
    if options.tokens and "seconds" in options.sweep and options.model == "head":
        parser.error("--tokens would leave nothing of the clip's length to grow")
    spec = {k: v for k, v in vars(options).items() if k not in ("sweep", "values", "one")}
    rows = [
        row
        for sweep in options.sweep
        for row in rows_of(sweep, options.values or SWEEPS[sweep], spec)
    ]
    print(harness.table(["", "", "step", "power", "memory", "power"], rows))


if __name__ == "__main__":
    main()
