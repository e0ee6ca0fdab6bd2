"""The paper's training step, an epoch and the log-mel on this machine's devices.

    python benchmarks/device.py --part step
    python benchmarks/device.py --part epoch --tiny

In bfloat16, 64 clips a device; no PyTorch needed (train_step.py compares with it). The table
also gives a step's lower bound from memory traffic and arithmetic, as `run.py --mode=compile`.
--tiny is for a try on CPU.
"""

import statistics
import time

import harness
import jax
import numpy as np

from ergl_jax.audio import get_front_end, log_mel
from ergl_jax.compiling import chips
from ergl_jax.compiling.programs import Programs, Sizes
from ergl_jax.training import step

WHAT = ("step", "epoch", "log_mel", "step_400_events")
CHIPS = {  # by JAX's name of a device, or its beginning
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5p": "v5p",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
    "NVIDIA H100": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA A100": "a100",
    "NVIDIA L4": "l4",
    "Tesla T4": "t4",
}


def chip_here() -> chips.Chip | None:
    """The published figures of the first device, if there are any."""
    kind = jax.devices()[0].device_kind
    for name, chip in CHIPS.items():
        if kind.startswith(name) and not kind[len(name) :][:1].isalnum():  # not an L40
            return chips.CHIPS[chip]
    return None


def programs(options, events: int, clips: int) -> Programs:
    """The paper's, or with --tiny a small one of the same form."""
    fields = {"model.compute_dtype": "bfloat16", "data.num_events": events}
    fields["train.batch_size"] = options.clips_per_device * jax.local_device_count()
    if options.tiny:
        fields |= {"model.encoder.width_divisor": 32, "data.clip_seconds": 1.0}
    config = harness.setting("paper").config.replace(**fields)
    return Programs(config, Sizes(10, events, clips), jax.local_devices())


def draw(found: Programs, clips: int) -> dict[str, np.ndarray]:
    """Log-mel as noise in dB, scenes and events of `clips` clips."""
    rng = np.random.default_rng(0)
    return {
        "log_mel": np.float32(-40 + 15 * rng.standard_normal((clips, *found.clip))),
        "scene": rng.integers(0, 10, clips).astype(np.int32),
        "events": np.float32(rng.uniform(size=(clips, found.events))),
    }


def seconds(call, rounds: int) -> list[float]:
    """Of each of `rounds` calls, after two warm-ups; `call` waits for its result."""
    times = []
    for _ in range(rounds + 2):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times[2:]


def steps(options, events: int, number: int) -> list:
    """`number` steps over resident clips; times of one step."""
    batch = options.clips_per_device * jax.local_device_count()
    found = programs(options, events, number * batch)
    data = step.replicate(draw(found, number * batch))
    state = step.init_state(found.model, found.adamw, seed=0, shape=found.clip)
    state = step.replicate(state)
    rows = np.arange(number * batch, dtype=np.int32).reshape(number, batch)

    def call():
        nonlocal state
        state, _ = jax.block_until_ready(found.trainer.epoch(state, data, rows))

    times = [x / number for x in seconds(call, options.rounds)]
    flops, traffic = found.step(batch).costs()
    chip = chip_here()
    bound = max(flops / chip.tflops / 1e12, traffic / chip.bandwidth / 1e9) if chip else None
    memory = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    median = statistics.median(times)
    return [
        f"{number} steps of {batch}, {events} events",
        f"{1e3 * median:.2f}",
        f"{1e3 * min(times):.2f} to {1e3 * max(times):.2f}",
        f"{batch / median:.1f}",
        f"{1e3 * bound:.2f}" if bound else "-",
        f"{memory / 1e9:.2f}" if memory else "-",
    ]


def log_mels(options) -> list:
    """Log-mel of a batch in the device's memory."""
    front_end = get_front_end("paper")
    length = front_end.num_samples(1.0 if options.tiny else 10.0)
    noise = np.random.default_rng(0).standard_normal((options.clips_per_device, length))
    waveforms = jax.device_put(np.float32(0.1 * noise))
    times = seconds(lambda: log_mel(waveforms, front_end).block_until_ready(), options.rounds)
    median = statistics.median(times)
    span = f"{1e3 * min(times):.2f} to {1e3 * max(times):.2f}"
    clips = options.clips_per_device / median
    return [f"log-mel of {len(waveforms)}", f"{1e3 * median:.2f}", span, f"{clips:.1f}", "-", "-"]


def main() -> None:
    parser = harness.parser(__doc__, rounds=5)
    parser.add_argument("--part", choices=WHAT, default="step")
    parser.add_argument("--clips-per-device", type=harness.positive, default=64)
    parser.add_argument("--tiny", action="store_true", help="a small model, for a try on CPU")
    options = parser.parse_args()
    batch = options.clips_per_device * jax.local_device_count()  # of TUT 2018's 6122 clips
    rows = {
        "step": lambda: steps(options, 25, 2 if options.tiny else 10),
        "epoch": lambda: steps(options, 25, 3 if options.tiny else max(1, 6122 // batch)),
        "step_400_events": lambda: steps(options, 40 if options.tiny else 400, 2),
        "log_mel": lambda: log_mels(options),
    }
    where = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    header = [where, "median, ms", "all rounds, ms", "clips/s", "at least, ms", "peak memory, GB"]
    print(harness.table(header, [rows[options.part]()]))


if __name__ == "__main__":
    harness.start(main)
