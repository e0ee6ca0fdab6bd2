"""`run.py --mode=compile`: whether a run fits a chip that is not installed, and how fast it can be.

All figures are the compiler's, or bounds by published peaks; only compilation is timed.
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
from ergl_jax.errors import MultilineInputError
from ergl_jax.files import check_directory, make_directory
from ergl_jax.labels import TUT2018_SCENES
from ergl_jax.training import workdirs
from ergl_jax.training.step import check_batch_size

GRANULE = 8  # clips per device: resolution of the search for the largest batch
MAX_CLIPS = 2**20  # per device, where that search ends


def run(
    config: Config, topology: str, workdir: Path, *, clips: int | None, largest_batch: bool
) -> str:
    """Plans the run of `config` on a topology, writes compile.json, returns the table.

    Args:
      config: validated.
      topology: as `chips.open_topology` takes it.
      workdir: of the run; created if missing.
      clips: of the training split; None: as many as the corpus has.
      largest_batch: whether to look for the largest batch that fits; compiles a few more times.

    Raises:
      InputError: a topology or a batch that can't be compiled for.
    """
    check_directory(workdir, "--workdir")  # now, not after minutes of compilation
    chip, devices = chips.open_topology(topology)
    check_batch_size(config.train.batch_size, len(devices), f" of {topology}")
    programs = Programs(config, sizes(config, clips), devices)
    found: dict[str, Any] = {"topology": topology, "devices": len(devices)}
    found |= plan(programs, chip)
    if largest_batch:
        free = chip.usable_bytes - found["resident_bytes"]
        found["largest_batch"] = find_largest_batch(programs, free, found["step"].get("peak_bytes"))
    make_directory(workdir, "workdir")
    workdirs.write_json(workdir / "compile.json", found)
    return table(found)


def sizes(config: Config, clips: int | None) -> Sizes:
    """Scenes, events and training clips of `config.data`; TUT 2018's without its recordings too."""
    try:
        corpus = sources.corpus(config.data)
    except MultilineInputError:  # TUT 2018 is not downloaded
        train = tut2018.DEVELOPMENT.clips["train"]
        return Sizes(len(TUT2018_SCENES), config.data.num_events, clips or train)
    train = sum(clip.split == "train" for clip in corpus.clips)
    return Sizes(len(corpus.scenes), config.data.num_events, clips or train)


def plan(programs: Programs, chip: Chip) -> dict[str, Any]:
    """The step and epoch of compile.json: per device, but batch size and clips/s are global."""
    config, number = programs.config, len(programs.devices)
    batch, clips = config.train.batch_size, programs.sizes.clips
    parameters, optimizer_state = (
        _bytes(tree) for tree in (programs.state.params, programs.state.opt_state)
    )
    data = programs.data(clips)
    large = _bytes([data[name] for name in data.keys() & {"log_mel", "activity"}])
    auto = config.data.resident == "auto" and large <= chip.usable_bytes // 2  # as in training
    resident = auto or config.data.resident == "always"
    step, program = _memory(lambda: programs.step(batch), chip)
    return {
        "chip": chip.name,
        "usable_bytes": chip.usable_bytes,
        "batch_size": batch,
        "compute_dtype": config.model.compute_dtype,
        "clips": clips,
        "parameter_bytes": parameters,
        "optimizer_bytes": optimizer_state,
        "resident_bytes": _bytes(data) if resident else 0,
        "step": step | (_costs(program, chip, number, batch) if program else {}),
        "epoch": _memory(lambda: programs.epoch(batch, clips), chip)[0] if resident else None,
    }


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _memory(
    compile_program: Callable[[], Program], chip: Chip
) -> tuple[dict[str, Any], Program | None]:
    """Whether a program fits, and the program if it compiles."""
    try:
        program = compile_program()
    except OutOfMemory as error:
        return {"fits": False, "reason": str(error)}, None
    memory = program.memory()
    return {
        "fits": memory["peak"] <= chip.usable_bytes,
        "compile_seconds": round(program.seconds, 1),
        "temporary_bytes": memory["temp"],
        "peak_bytes": memory["peak"],
        "aliased_buffers": program_text.aliased(program.text),
    }, program


def _costs(program: Program, chip: Chip, devices: int, batch_size: int) -> dict[str, Any]:
    """A step's FLOPs, traffic and collectives, and the least time each needs by published peaks."""
    flops, traffic = program.costs()
    sent = program_text.collectives(program.text)
    # An all-reduce over d devices sends 2 (d - 1) / d of its bytes from each.
    share = 2 * (devices - 1) / devices
    bounds = {
        "arithmetic": flops / (chip.tflops * 1e12),
        "memory": traffic / (chip.bandwidth * 1e9),
        "collectives": share * sum(size for _, size in sent.values()) / (chip.links * 1e9),
    }
    binding = max(bounds, key=bounds.__getitem__)
    copies, copied = program_text.layout_copies(program.text)
    return {
        "flops": flops,
        "bytes_accessed": traffic,
        "layout_copies": {"number": copies, "bytes": copied},
        "collectives": {
            kind: {"number": number, "bytes": size} for kind, (number, size) in sent.items()
        },
        "seconds_at_least": bounds,
        "bound_by": binding,
        "clips_per_second_at_most": batch_size / bounds[binding],
    }


def find_largest_batch(programs: Programs, free: int, peak: int | None) -> int | None:
    """The largest global batch whose step fits `free` bytes of each device; None if none does.

    To GRANULE clips per device. Memory grows almost linearly with the batch, so two compilations
    predict the next. `peak` is the peak of the configuration's own batch, None if it did not
    compile.
    """
    number = len(programs.devices)
    share = programs.config.train.batch_size // number
    peaks = {share: peak}
    fitting = failing = tries = 0  # the largest share known to fit, the smallest not to; 0: none
    while True:
        if share not in peaks:
            try:
                peaks[share] = programs.step(share * number).memory()["peak"]
            except OutOfMemory:
                peaks[share] = None
        found = peaks[share]
        if found is not None and found <= free:
            fitting = share
        else:
            failing = share
        tries += 1
        if (failing and failing - fitting <= GRANULE) or fitting > MAX_CLIPS:
            return fitting * number or None
        known = [(s, p) for s, p in peaks.items() if p is not None]
        (low, low_peak), (high, high_peak) = min(known, default=(0, 0)), max(known, default=(0, 0))
        if high_peak > low_peak and (tries <= 3 or not failing):  # then bisects
            slope = (high_peak - low_peak) / (high - low)
            share = int(high + (free - high_peak) / slope)
        else:
            share = (fitting + failing) // 2 if failing else 2 * fitting
        share = max(share // GRANULE, fitting // GRANULE + 1) * GRANULE
        share = min(share, max(failing - GRANULE, GRANULE) if failing else 16 * fitting)


def table(found: dict[str, Any]) -> str:
    """A plan as lines of text."""

    def gb(size: float) -> str:
        return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"

    lines = [
        f"{found['topology']}: {found['devices']} device(s), batch {found['batch_size']}, "
        f"{found['compute_dtype']}; per device (batch, clips/s: global), bounds, not timings",
        f"parameters {gb(found['parameter_bytes'])}, optimiser {gb(found['optimizer_bytes'])}, "
        f"resident data of {found['clips']} clips {gb(found['resident_bytes'])}",
    ]
    for name in ("step", "epoch"):
        each = found[name]
        if each is None:
            continue
        if "reason" in each:
            lines.append(f"{name}: does NOT fit: {each['reason']}")
            continue
        lines.append(
            f"{name}: {'fits' if each['fits'] else 'does NOT fit'}: peak {gb(each['peak_bytes'])} "
            f"of {gb(found['usable_bytes'])} usable, temporaries {gb(each['temporary_bytes'])}, "
            f"{each['aliased_buffers']} buffers donated; compiled in {each['compile_seconds']} s"
        )
    step = found["step"]
    if "flops" in step:
        sent = [
            f"{x['number']} {kind} of {gb(x['bytes'])}" for kind, x in step["collectives"].items()
        ]
        copies, bounds = step["layout_copies"], step["seconds_at_least"]
        lines += [
            f"a step: {step['flops'] / 1e12:.3f} TFLOP; {gb(step['bytes_accessed'])} read and "
            f"written; {copies['number']} layout copies of {gb(copies['bytes'])}; collectives: "
            + ("; ".join(sent) or "none"),
            "at least "
            + ", ".join(f"{1e3 * seconds:.2f} ms of {kind}" for kind, seconds in bounds.items())
            + f": at most {step['clips_per_second_at_most']:.0f} clips/s, bound by "
            + step["bound_by"],
        ]
    if "largest_batch" in found:
        lines.append(f"largest batch that fits: {found['largest_batch'] or 'none'}")
    return "\n".join(lines)
