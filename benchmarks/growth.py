"""How a training step's time and memory grow with events, layers, clip length, batch, devices.

    python benchmarks/growth.py --sweep events --values 10,25,50,100,200,400
    python benchmarks/growth.py --sweep layers seconds batch devices
    python benchmarks/growth.py --sweep seconds --model whole --setting quickstart

One quantity grows, the others are as the flags set them. `--model head` is ERGL without its
encoder, on tokens of noise, as many as Cnn14 makes of the clip; `whole` is a setting's model on
spectrograms. Each row is measured in a process of its own, with the Trainer's compiled step;
devices are virtual CPU devices, which share the cores. Memory, of all devices, is the larger of
XLA's plan for temporaries and, on CPU, of the growth of the process in a step. A row that plans for
more than is free is not run; its plan is shown. A power is the exponent of the growth since the row
before: 1 is linear, 2 quadratic.
"""

import argparse
import json
import math
import statistics
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
    """Seconds of a step (median) and its bytes, or "error" and its planned bytes."""
    import jax
    import numpy as np

    from ergl_jax import registry
    from ergl_jax.models.ergl import GraphHead, GraphReadout
    from ergl_jax.training import optimizer
    from ergl_jax.training.step import AXIS, Trainer, _split, init_state, replicate

    harness.use_cpu(spec["devices"])
    gpu = jax.default_backend() == "gpu"
    setting = harness.setting(spec["setting"], gpu=gpu)
    dtype = "bfloat16" if gpu else "float32"
    fields = {"model.gcn.layers": spec["layers"], "model.compute_dtype": dtype}
    config = setting.config.replace(**fields)
    frames = 100 * spec["seconds"] + 1
    rng, batch = np.random.default_rng(0), spec["batch"]
    if spec["model"] == "head":
        dtype = jax.numpy.dtype(dtype)
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
        "log_mel": np.float32(x),  # or tokens: the model's input, whatever it is
        "scene": rng.integers(0, setting.scenes, batch),
        "events": np.float32(rng.uniform(size=(batch, spec["events"]))),
    }
    adamw = optimizer.adamw(config.optimizer, steps_per_epoch=100, epochs=config.train.epochs)
    trainer = Trainer(model, adamw, lambda key, batch: batch, num_scenes=setting.scenes, seed=0)
    state = replicate(init_state(model, adamw, seed=0, shape=shape))
    data = _split(data)
    # The Trainer's own step, as only a compiled program has a plan.
    step = trainer.step_program.lower(trainer.key, state, data).compile()
    planned = harness.planned_bytes(step)
    if not gpu and planned > (free := free_bytes()):
        return {"error": f"not run: {free / 1e9:.1f} GB free", "bytes": planned}

    def call():
        nonlocal state
        state, metrics = step(trainer.key, state, data)
        jax.block_until_ready((state, metrics))

    call()
    needed = harness.needed_bytes(step, call)
    seconds = statistics.median(harness.time_in_turn({"": call}, spec["rounds"])[""])
    return {"seconds": seconds, "bytes": needed}


def free_bytes() -> int:
    """Bytes of memory that are free for programs."""
    with open("/proc/meminfo", encoding="utf-8") as file:
        line = next(line for line in file if line.startswith("MemAvailable"))
    return 1024 * int(line.split()[1])


def rows_of(sweep: str, values: list[int], spec: dict) -> list[list]:
    rows, last = [], None
    for value in values:
        try:
            found = harness.run_script(__file__, "--one", json.dumps(spec | {sweep: value}))
        except harness.InputError as error:  # out of memory, mostly
            found = {"error": str(error)[:160]}
        print(f"{sweep} {value}: {found}", file=sys.stderr, flush=True)
        memory = f"{found['bytes'] / 1e6:.1f} MB" if "bytes" in found else ""
        if "error" in found:
            rows.append([sweep, value, found["error"], "", memory, ""])
            continue
        now = value, found["seconds"], found["bytes"]
        powers = ["", ""]
        if last:
            growth = [math.log(b / a) for a, b in zip(last, now, strict=True)]
            powers = [f"{each / growth[0]:.2f}" for each in growth[1:]]
        rows.append([sweep, value, f"{1000 * now[1]:.1f} ms", powers[0], memory, powers[1]])
        last = now
    return rows


def main() -> None:
    parser = harness.parser(__doc__, rounds=7)
    add = parser.add_argument
    add("--sweep", nargs="+", default=["events"], choices=SWEEPS)
    add("--values", type=lambda text: [harness.positive(x) for x in text.split(",")])
    add("--model", default="head", choices=["head", "whole"])
    add("--setting", default="paper", choices=harness.SETTINGS, help="encoder, width, optimiser")
    add("--tokens", type=harness.positive, help="of the head; default: as Cnn14 makes of the clip")
    for name, default in (("events", 25), ("layers", 2), ("seconds", 10), ("batch", 8)):
        add(f"--{name}", type=harness.positive, default=default, help="if not in --sweep")
    add("--devices", type=harness.positive, default=1, help="virtual devices of the CPU")
    add("--one", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    if options.values and len(options.sweep) > 1:
        parser.error("--values needs a single --sweep")
    if options.tokens and "seconds" in options.sweep and options.model == "head":
        parser.error("--tokens fixes what --sweep=seconds would let grow")
    spec = {k: v for k, v in vars(options).items() if k not in ("sweep", "values", "one")}
    rows = []
    for sweep in options.sweep:
        rows += rows_of(sweep, options.values or SWEEPS[sweep], spec)
    print(harness.table(["", "", "step", "power", "memory", "power"], rows))


if __name__ == "__main__":
    harness.start(main)
