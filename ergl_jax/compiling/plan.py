"""`run.py --mode=compile`: whether a run fits chips that are not there, and how fast it may be.

All figures are the compiler's, or bounds by published peaks; nothing is timed but the compiler.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from ergl_jax.compiling import chips, program_text
from ergl_jax.compiling.chips import Chip
from ergl_jax.compiling.programs import OutOfMemory, Program, Programs, Sizes
from ergl_jax.config import Config
from ergl_jax.datasets import sources, tut2018
from ergl_jax.errors import InputError, MultilineInputError
from ergl_jax.files import make_directory
from ergl_jax.labels import TUT2018_SCENES
from ergl_jax.training import workdirs

GRANULE = 8  # clips on a device: the batches that the search for the largest one looks at


def run(
    config: Config, topology: str, workdir: Path, *, clips: int | None, largest_batch: bool
) -> str:
    """Plans the run of `config` on a topology, writes compile.json, returns the table.

    Args:
      config: checked.
      topology: as `chips.open_topology` takes it.
      workdir: of the run; it is made if need be.
      clips: of the training split; None: as many as the corpus has.
      largest_batch: whether to look for the largest batch that fits; some more compilations.

    Raises:
      InputError: a topology or a batch that can't be compiled for.
    """
    chip, devices = chips.open_topology(topology)
    if config.train.batch_size % len(devices):
        raise InputError(
            f"train.batch_size={config.train.batch_size} is not a multiple of the {len(devices)} "
            f"devices of {topology}"
        )
    programs = Programs(config, sizes(config, clips), devices)
    found: dict[str, Any] = {"topology": topology, "devices": len(devices)}
    found |= plan(programs, chip)
    if largest_batch:
        found["largest_batch"] = find_largest_batch(programs, chip, found["step"].get("peak_bytes"))
    make_directory(workdir, "workdir")
    workdirs.write_json(workdir / "compile.json", found)
    return table(found)


def sizes(config: Config, clips: int | None) -> Sizes:
    """Scenes, events and training clips of `config.data`; TUT 2018's are known without it."""
    try:
        corpus = sources.corpus(config.data)
    except MultilineInputError:  # TUT 2018 is not there
        train = tut2018.DEVELOPMENT.clips["train"]
        return Sizes(len(TUT2018_SCENES), config.data.num_events, clips or train)
    train = sum(clip.split == "train" for clip in corpus.clips)
    return Sizes(len(corpus.scenes), config.data.num_events, clips or train)


def plan(programs: Programs, chip: Chip) -> dict[str, Any]:
    """What compile.json has of the step and of the epoch; figures are of one device."""
    config, number = programs.config, len(programs.devices)
    batch, clips = config.train.batch_size, programs.sizes.clips
    parameters, optimizer_state = (
        _bytes(tree) for tree in (programs.state.params, programs.state.opt_state)
    )
    resident = _bytes(programs.data(clips))
    found = {
        "chip": chip.name,
        "usable_bytes": chip.usable_bytes,
        "batch_size": batch,
        "compute_dtype": config.model.compute_dtype,
        "clips": clips,
        "parameter_bytes": parameters,
        "optimizer_bytes": optimizer_state,
        "resident_bytes": resident,
        "step": _describe(lambda: programs.step(batch), chip, number, batch),
        "epoch": None,
    }
    if config.data.resident != "never":
        found["epoch"] = _describe(lambda: programs.epoch(batch, clips), chip, number, batch)
    return found


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _describe(
    compile_program: Callable[[], Program], chip: Chip, devices: int, batch_size: int
) -> dict[str, Any]:
    """The entry of a program."""
    try:
        program = compile_program()
    except OutOfMemory as error:
        return {"fits": False, "reason": str(error)}
    memory, (flops, traffic) = program.memory(), program.costs()
    sent = program_text.collectives(program.text)
    # An all-reduce over d devices sends and receives 2 (d - 1) / d of its bytes on each.
    link_bytes = sum(size for _, size in sent.values()) * 2 * (devices - 1) / devices
    bounds = {
        "arithmetic": flops / (chip.tflops * 1e12),
        "memory": traffic / (chip.bandwidth * 1e9),
        "collectives": link_bytes / (chip.links * 1e9),
    }
    binding = max(bounds, key=bounds.__getitem__)
    copies, copied = program_text.layout_copies(program.text)
    return {
        "fits": memory["peak"] <= chip.usable_bytes,
        "compile_seconds": round(program.seconds, 1),
        "temporary_bytes": memory["temp"],
        "peak_bytes": memory["peak"],
        "flops": flops,
        "bytes_accessed": traffic,
        "layout_copies": {"number": copies, "bytes": copied},
        "collectives": {
            kind: {"number": number, "bytes": size} for kind, (number, size) in sent.items()
        },
        "aliased_buffers": program_text.aliased(program.text),
        "seconds_at_least": bounds,
        "bound_by": binding,
        "clips_per_second_at_most": batch_size / bounds[binding],
    }


def find_largest_batch(programs: Programs, chip: Chip, peak: int | None) -> int | None:
    """The largest global batch whose step fits, to GRANULE clips a device; None if none does.

    Memory grows almost linearly with the batch, so two programs predict the third. `peak` is that
    of the configuration's own batch, None if it did not compile.
    """
    number = len(programs.devices)
    share = programs.config.train.batch_size // number
    peaks = {share: peak}
    fitting, failing = 0, 0  # the largest share known to fit, the smallest known not to, 0: none
    while True:
        if share not in peaks:
            try:
                peaks[share] = programs.step(share * number).memory()["peak"]
            except OutOfMemory:
                peaks[share] = None
        found = peaks[share]
        if found is not None and found <= chip.usable_bytes:
            fitting = share
        else:
            failing = share
        if failing and failing - fitting <= GRANULE:
            return fitting * number or None
        known = [(s, p) for s, p in peaks.items() if p is not None]
        (low, low_peak), (high, high_peak) = min(known, default=(0, 0)), max(known, default=(0, 0))
        if high_peak > low_peak:
            slope = (high_peak - low_peak) / (high - low)
            share = int(high + (chip.usable_bytes - high_peak) / slope)
        else:
            share = (fitting + failing) // 2 if failing else 2 * fitting
        share = max(share // GRANULE, fitting // GRANULE + 1) * GRANULE
        share = min(share, max(failing - GRANULE, GRANULE) if failing else 16 * fitting)


def table(found: dict[str, Any]) -> str:
    """A plan as lines of text."""

    def gb(size: float) -> str:
        return f"{size / 1e9:.2f} GB"

    usable = found["usable_bytes"]
    lines = [
        f"{found['topology']}: {found['devices']} device(s), batch {found['batch_size']}, "
        f"{found['compute_dtype']}; figures of one device, by the compiler: bounds, no timings",
        f"parameters {gb(found['parameter_bytes'])}, optimiser {gb(found['optimizer_bytes'])}, "
        f"resident data of {found['clips']} clips {gb(found['resident_bytes'])}",
    ]
    for name in ("step", "epoch"):
        each = found[name]
        if each is None:
            continue
        if "flops" not in each:
            lines.append(f"{name}: does NOT fit {gb(usable)}: {each['reason']}")
            continue
        word = "fits" if each["fits"] else "does NOT fit"
        bounds = each["seconds_at_least"]
        sent = "; ".join(
            f"{x['number']} {kind} of {gb(x['bytes'])}" for kind, x in each["collectives"].items()
        )
        lines += [
            f"{name}: {word}: peak {gb(each['peak_bytes'])} of {gb(usable)} usable, temporaries "
            f"{gb(each['temporary_bytes'])}; compiled in {each['compile_seconds']} s",
            f"  {each['flops'] / 1e12:.3f} TFLOP, {gb(each['bytes_accessed'])} read and written, "
            f"{each['layout_copies']['number']} layout copies of "
            f"{gb(each['layout_copies']['bytes'])}, {each['aliased_buffers']} buffers donated",
            f"  collectives: {sent or 'none'}",
            "  at least "
            + ", ".join(f"{1e3 * seconds:.2f} ms of {kind}" for kind, seconds in bounds.items())
            + f": at most {each['clips_per_second_at_most']:.0f} clips/s, bound by "
            + each["bound_by"],
        ]
    if "largest_batch" in found:
        lines.append(f"largest batch whose step fits: {found['largest_batch'] or 'none'}")
    return "\n".join(lines)
