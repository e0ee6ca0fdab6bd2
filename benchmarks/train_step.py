"""A training step against the same model in PyTorch.

    python benchmarks/train_step.py --settings quickstart esc10 paper

Forward, losses, backward and AdamW, dropout as configured, no augmentation; the clips are in device
memory, as in run.py. Both models start with the same weights, and their losses are compared before
anything is timed. On a GPU in bfloat16 (PyTorch by autocast), else in float32. FLOPs are those that
PyTorch counts for its eager step.
"""

import dataclasses
import os
from functools import partial
from unittest import mock

# Else JAX takes most of the GPU's memory, and PyTorch has none.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import harness  # noqa: E402
import jax  # noqa: E402
import layers  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch_ergl  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from ergl_jax import registry  # noqa: E402
from ergl_jax.models import layers as model_layers  # noqa: E402
from ergl_jax.models import losses  # noqa: E402
from ergl_jax.training import optimizer  # noqa: E402
from ergl_jax.training.step import AXIS, Trainer, init_state, replicate  # noqa: E402

TOLERANCE = 1e-4  # of the losses, in float32


def draw(setting: harness.Setting, clips: int) -> dict[str, np.ndarray]:
    """log_mel (N, F, M) as noise in dB, scene (N,) and events (N, n)."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((clips, setting.frames, setting.mels))
    return {
        "log_mel": np.float32(-40 + 15 * noise),
        "scene": rng.integers(0, setting.scenes, clips),
        "events": np.float32(rng.uniform(size=(clips, setting.events))),
    }


def sizes(setting: harness.Setting) -> dict[str, int]:
    return {"num_scenes": setting.scenes, "num_events": setting.events}


def initial_variables(setting: harness.Setting) -> dict:
    """Initial variables; SystemExit if they give the models different losses, without dropout."""
    off = {"model.dropout": 0.0, "model.encoder.dropout": 0.0}
    config = setting.config.replace(**off).model
    model, data = registry.build(config, **sizes(setting)), draw(setting, 2)
    init = jax.jit(partial(model.init, train=False))
    variables = jax.device_get(init(jax.random.key(0), data["log_mel"][:1]))

    @jax.jit
    def ours(variables, log_mel, scene, events):
        output, _ = model.apply(variables, log_mel, train=True, mutable=["batch_stats"])
        scene = jax.nn.one_hot(scene, setting.scenes)
        return losses.losses(output, scene=scene, events=events)["loss"]

    with jax.default_matmul_precision("float32"):
        expected = float(ours(variables, **data))
    other = torch_ergl.ERGL(config, **sizes(setting))
    torch_ergl.load(other, variables)
    with torch.no_grad():
        found = torch_ergl.loss(other, *map(torch.from_numpy, data.values())).item()
    print(f"Loss of two clips: ergl_jax {expected:.6f}, PyTorch {found:.6f}\n", flush=True)
    if not abs(found - expected) < TOLERANCE:
        raise SystemExit("the two models differ: nothing is timed")
    return variables


def with_jax(setting: harness.Setting, variables: dict, data: dict, rows: np.ndarray, dtype: str):
    """A call that takes a step with each of `rows` (S, B)."""
    config = dataclasses.replace(setting.config.model, compute_dtype=dtype)
    model = registry.build(config, **sizes(setting), axis_name=AXIS)
    adamw = optimizer.adamw(
        setting.config.optimizer, steps_per_epoch=100, epochs=setting.config.train.epochs
    )
    trainer = Trainer(model, adamw, lambda key, batch: batch, num_scenes=setting.scenes, seed=0)
    state = init_state(model, adamw, seed=0, shape=data["log_mel"].shape[1:])
    if jax.tree.structure(state.params) == jax.tree.structure(variables["params"]):
        state = state.replace(**variables)  # not with Flax's layers, whose names differ
    state, resident = replicate(state), replicate(data)

    def call():
        nonlocal state
        state, _ = jax.block_until_ready(trainer.epoch(state, resident, rows))

    for _ in range(2):  # the state of the first may have another layout, and compile again
        call()
    return call


def with_flax_layers(*arguments):
    """The same with Flax's layers in the encoder."""
    with mock.patch.multiple(model_layers, **layers.FLAX):
        return with_jax(*arguments)  # whose first calls trace the model


def with_torch(setting, variables, data, rows, dtype, *, layout=torch.channels_last, mode=None):
    """The same in PyTorch; `mode` is torch.compile's, None is eager."""
    model = torch_ergl.ERGL(setting.config.model, **sizes(setting))
    torch_ergl.load(model, variables)
    device = torch_ergl.device()
    model = model.to(device, memory_format=layout)
    settings = setting.config.optimizer
    adamw = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    resident = [torch.from_numpy(x).to(device) for x in data.values()]
    rows, loss = torch.from_numpy(rows).to(device), torch_ergl.loss
    if mode:
        loss = torch.compile(loss, mode=mode, dynamic=False)

    def call():
        total = torch.zeros((), device=device)
        for chosen in rows:
            with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
                value = loss(model, *(x[chosen] for x in resident))
            adamw.zero_grad()
            value.backward()
            adamw.step()
            total += value.detach()
        total.item()  # waits for the GPU

    call()
    return call


def rows_of(name: str, options) -> list[list]:
    torch.compiler.reset()  # else torch.compile gives up after too many shapes of one function
    gpu = torch_ergl.device() == "cuda"
    setting, dtype = harness.setting(name, gpu=gpu), "bfloat16" if gpu else "float32"
    count = options.steps or (10 if gpu else 1)
    rows = np.random.default_rng(0).permutation(count * setting.batch).astype(np.int32)
    rows = rows.reshape(count, setting.batch)
    arguments = (setting, initial_variables(setting), draw(setting, rows.size), rows, dtype)
    eager = with_torch(*arguments, layout=torch.contiguous_format)
    with FlopCounterMode(display=False) as counter:
        eager()
    makers = {"ergl_jax": partial(with_jax, *arguments)}
    if options.flax:
        makers["ergl_jax, Flax's layers"] = partial(with_flax_layers, *arguments)
    makers["PyTorch eager"] = lambda: eager
    makers["PyTorch eager, channels_last"] = partial(with_torch, *arguments)
    layouts = {"": torch.contiguous_format, ", channels_last": torch.channels_last}
    for mode in options.compile:
        for end, layout in layouts.items():
            makers[f"PyTorch compiled ({mode}){end}"] = partial(
                with_torch, *arguments, layout=layout, mode=mode
            )
    found = harness.compare(
        makers,
        rounds=options.rounds,
        clips=rows.size,
        flops=counter.get_total_flops(),
        peak_tflops=options.peak_tflops,
    )
    what = f"{name}, {count} of {setting.batch} x {setting.frames}, {dtype}"
    return [[what, *row] for row in found]


def main() -> None:
    parser = harness.parser(__doc__, rounds=7)
    add = parser.add_argument
    add("--settings", nargs="+", default=harness.SETTINGS, choices=harness.SETTINGS)
    add("--steps", type=harness.positive, help="of a timed call; default: 1 on CPU, 10 on GPU")
    add("--compile", nargs="*", default=["default"], help="torch.compile's modes; empty: no row")
    add("--flax", action="store_true", help="adds a row with Flax's own layers in the encoder")
    add("--cpu-devices", type=harness.positive, default=1)
    add("--peak-tflops", type=float, help="of the device: adds the share of it in %%")
    options = parser.parse_args()
    harness.use_cpu(options.cpu_devices)
    rows = [row for name in options.settings for row in rows_of(name, options)]
    where = torch.cuda.get_device_name() if torch_ergl.device() == "cuda" else "CPU"
    print(f"JAX {jax.__version__} on {jax.device_count()} device(s), PyTorch {torch.__version__} ")
    print(f"on {torch.get_num_threads()} threads, {where}\n")
    print(harness.table(["setting: steps of clips x frames", *harness.COMPARED], rows))


if __name__ == "__main__":
    harness.start(main)
