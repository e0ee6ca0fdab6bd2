"""Many runs as a table: a row for each system, an accuracy over its seeds.

A work directory holds <row>/seed<s>, each a run of its own, and table.md and table.csv. The same
command goes on where it stopped; processes that were given shards of one table share the directory.
"""

import csv
import dataclasses
import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from ergl_jax import registry
from ergl_jax.audio import get_front_end
from ergl_jax.config import Config
from ergl_jax.errors import InputError, InputErrorOnAScreen, report
from ergl_jax.files import atomic_write, make_directory
from ergl_jax.recipes import stages
from ergl_jax.training import hosts, macs, workdirs

COLUMNS = (
    "row",
    "parameters",
    "GMAC a clip",
    "accuracy %",
    "seeds",
    "published %",
    "training minutes",
    "remarks",
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A system in a table.

    Attributes:
      name: of its directory.
      config: of its runs, but for the seed.
      published: its accuracy in the paper, in per cent, such as "78.08 ± 2.01".
      remarks: such as "interpretation".
    """

    name: str
    config: Config
    published: str
    remarks: str = ""


def run(rows: Sequence[Row], workdir: Path, *, seeds: Sequence[int], shard: str) -> str:
    """Trains what is missing of a shard of the runs; writes and returns the table of all.

    A run that can't be is told on stderr and named in the table, and the others go on (but where
    several processes share each run); then an InputError at the end says so. One whose directory
    holds other settings, or a corpus that is not there, is an InputError at once.

    Args:
      rows: of the table.
      workdir: where all is kept.
      seeds: of each row.
      shard: "i/k", i from 0: every k-th run from the i-th on.
    """
    mine, of = _shard(shard)
    whole = all(type(seed) is int and seed >= 0 for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds={tuple(seeds)}: name some whole numbers from 0 on, each once")
    runs = list(itertools.product(rows, seeds))
    # All of them, before the first trains.
    done = [
        stages.is_done(row.config.replace(seed=s), _directory(workdir, row, s)) for row, s in runs
    ]
    if of == 1 and hosts.is_main_process():  # else another shard may be writing the table
        workdirs.remove_unfinished(workdir)
    failures = {}
    for (row, seed), is_done in list(zip(runs, done, strict=True))[mine::of]:
        if is_done:
            continue
        directory = _directory(workdir, row, seed)
        print(f"Row {row.name}, seed {seed}: {directory}", flush=True)
        try:
            stages.train(row.config.replace(seed=seed), directory)
        except InputErrorOnAScreen:  # the corpus is not there, for no row
            raise
        except InputError as error:
            if jax.process_count() > 1:  # the others may be in the middle of the run
                raise
            report(InputError(f"row {row.name}, seed {seed}: {error}"))
            failures[row.name] = str(error)
        _write(rows, workdir, seeds, failures)  # a table takes hours: what there is, at once
    text = _write(rows, workdir, seeds, failures)
    if failures:
        raise InputError(
            f"{', '.join(failures)}: not trained, see above; the same command tries again. The "
            f"table of the others is {workdir / 'table.md'}"
        )
    return text


def size(config: Config, num_scenes: int) -> tuple[int, float]:
    """The parameters and the GMAC a clip of a configuration's model, without any data.

    Parameters are those that could be trained: no running statistics.
    """
    front_end = get_front_end(config.data.front_end)
    seconds = config.data.clip_seconds
    shape = (front_end.num_frames(seconds), front_end.n_mels)
    num_events = config.data.num_events if registry.system(config.model.name).events else 0
    model = registry.build(config.model, num_scenes=num_scenes, num_events=num_events)
    clip = jax.ShapeDtypeStruct((1, *shape), np.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), clip)
    parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
    return parameters, macs.count(model, variables, shape) / 1e9


def _write(rows: Sequence[Row], workdir: Path, seeds: Sequence[int], failures: dict) -> str:
    """Writes table.md and table.csv by the results that are there; the former's text."""
    lines = [_line(row, workdir, seeds, failures) for row in rows]
    text = _markdown(lines)
    if hosts.is_main_process():
        make_directory(workdir, "workdir")
        for name, content in (("table.csv", _csv(lines)), ("table.md", text)):
            with atomic_write(workdir / name) as beside:
                beside.write_text(content, encoding="utf-8", newline="")
    return text


def _shard(shard: str) -> tuple[int, int]:
    try:
        mine, of = (int(number) for number in shard.split("/"))
    except ValueError:
        mine, of = -1, 0
    if not 0 <= mine < of:
        raise InputError(f"shard={shard!r} is not like 0/4: a number from 0, and of how many")
    return mine, of


def _directory(workdir: Path, row: Row, seed: int) -> Path:
    return workdir / row.name / f"seed{seed}"


def _line(row: Row, workdir: Path, seeds: Sequence[int], failures: dict) -> dict[str, str]:
    """A row of the table, by the results that are there."""
    found = []
    for seed in seeds:
        directory = _directory(workdir, row, seed)
        if (directory / "results.json").exists():
            found.append(workdirs.read_results(directory))
    values = dict.fromkeys(COLUMNS, "")
    values |= {"row": row.name, "published %": row.published}
    values["remarks"] = "; ".join(filter(None, (row.remarks, failures.get(row.name, ""))))
    values["seeds"] = f"{len(found)} of {len(seeds)}"
    if found:
        values["parameters"] = str(found[0]["parameters"])
        values["GMAC a clip"] = f"{found[0]['gmac_per_clip']:.3g}"
        minutes = np.mean([each["training_seconds"] for each in found]) / 60
        values["training minutes"] = f"{minutes:.1f}"
        tested = [each["test"]["class_mean_accuracy"] for each in found if each.get("test")]
        if tested:
            values["accuracy %"] = _mean(100 * np.array(tested))
    return values


def _mean(values: np.ndarray) -> str:
    """Mean and, of two or more, standard deviation (of a sample)."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def _csv(lines: list[dict]) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _markdown(lines: list[dict]) -> str:
    def row(cells) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    head = row(COLUMNS) + "|" + "---|" * len(COLUMNS) + "\n"
    return head + "".join(row(line[name] for name in COLUMNS) for line in lines)
