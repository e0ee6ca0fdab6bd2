"""Many runs as a table: a row for each system, its accuracy over seeds.

The work directory has <row>/seed<s>, each a run of its own, and table.md and table.csv. The same
command continues where it stopped; processes with different shards of a table share the directory.
"""

import collections
import csv
import dataclasses
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ergl_jax import registry
from ergl_jax.audio import get_front_end
from ergl_jax.config import Config
from ergl_jax.errors import InputError, MultilineInputError, report
from ergl_jax.files import atomic_write, make_directory
from ergl_jax.locks import InUse
from ergl_jax.recipes import stages
from ergl_jax.systems import SYSTEMS
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
      config: a ConfigDict for its runs; each replaces the seed.
      published: its accuracy in the paper, in per cent, such as "78.08 ± 2.01".
      remarks: such as "interpretation".
    """

    name: str
    config: Any
    published: str
    remarks: str = ""


def run(rows: Sequence[Row], workdir: Path, *, seeds: Sequence[int], shard: str) -> str:
    """Trains the missing runs of a shard; writes and returns the table of all runs.

    Failed runs are reported on stderr and in the table, and the others continue; an InputError at
    the end names them. A directory of another configuration or a missing corpus is an InputError at
    once, as is any failure with several processes for each run.

    `shard` is "i/k": every k-th run from the i-th on, i from 0.
    """
    failures: dict[str, str] = {}
    runs, wrong = [], collections.defaultdict(list)  # of an error's text, the rows
    for row, seed in itertools.product(rows, seeds):
        try:
            config = Config.from_dict(row.config.to_dict() | {"seed": seed})
        except InputError as error:
            wrong[str(error)].append(row.name)
        else:
            runs.append((row, config, _directory(workdir, row, seed)))
    for text, names in wrong.items():
        names = list(dict.fromkeys(names))
        if jax.process_count() > 1 or not runs and len(wrong) == 1:
            raise InputError(text)
        report(InputError(f"row {', '.join(names)}: {text}"))
        failures |= dict.fromkeys(names, text)
    # All of them, before the first trains.
    for _, config, directory in runs:
        stages.is_done(config, directory)
    index, shards = map(int, shard.split("/"))
    with workdirs.held(workdir, f"lock-{index}-of-{shards}.json"):
        if shards == 1 and hosts.is_main_process():  # else another shard may be writing the table
            workdirs.remove_unfinished(workdir)
        for row, config, directory in runs[index::shards]:
            if stages.is_done(config, directory):
                continue
            print(f"Row {row.name}, seed {config.seed}: {directory}", flush=True)
            try:
                with workdirs.held(directory):
                    stages.train(config, directory)
            except (MultilineInputError, InUse):  # no corpus, for no row; this table runs already
                raise
            except InputError as error:
                if jax.process_count() > 1:  # the others may be in the middle of the run
                    raise
                report(InputError(f"row {row.name}, seed {config.seed}: {error}"))
                failures[row.name] = str(error)
            _write(rows, workdir, seeds, failures)  # now, since a table takes hours
        text = _write(rows, workdir, seeds, failures)
    if failures:
        raise InputError(
            f"{', '.join(failures)}: not trained, see above; the same command tries again. The "
            f"table of the others is {workdir / 'table.md'}"
        )
    return text


def size(config, num_scenes: int) -> tuple[int, float]:
    """Trainable parameters and GMAC per clip of a configuration's model, without any data."""
    front_end = get_front_end(config.data.front_end)
    shape = front_end.shape(config.data.clip_seconds)
    num_events = config.data.num_events if SYSTEMS[config.model.name].events else 0
    model = registry.build(
        config.model,
        num_scenes=num_scenes,
        num_events=num_events,
        frame_seconds=front_end.frame_seconds,
    )
    clip = jax.ShapeDtypeStruct((1, *shape), np.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), clip)
    parameters = sum(x.size for x in jax.tree.leaves(variables["params"]))
    return parameters, macs.count(model, variables, shape) / 1e9


def _directory(workdir: Path, row: Row, seed: int) -> Path:
    return workdir / row.name / f"seed{seed}"


def _write(rows: Sequence[Row], workdir: Path, seeds: Sequence[int], failures: dict) -> str:
    """Writes table.md and table.csv of the finished runs; returns the text of table.md."""
    lines = [_line(row, workdir, seeds, failures) for row in rows]
    markdown = _markdown(lines)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    writer.writerows(lines)
    if hosts.is_main_process():
        make_directory(workdir, "workdir")
        for name, text in (("table.csv", buffer.getvalue()), ("table.md", markdown)):
            with atomic_write(workdir / name) as tmp_path:
                tmp_path.write_text(text, encoding="utf-8", newline="")
    return markdown


def _line(row: Row, workdir: Path, seeds: Sequence[int], failures: dict) -> dict[str, str]:
    """A row of the table, of its finished runs."""
    directories = [_directory(workdir, row, seed) for seed in seeds]
    found = [workdirs.read_results(x) for x in directories if (x / "results.json").exists()]
    values = dict.fromkeys(COLUMNS, "") | {
        "row": row.name,
        "seeds": f"{len(found)} of {len(seeds)}",
        "published %": row.published,
        "remarks": "; ".join(filter(None, (row.remarks, failures.get(row.name, "")))),
    }
    if found:
        minutes = np.mean([each["training_seconds"] for each in found]) / 60
        tested = [each["test"]["class_mean_accuracy"] for each in found if each.get("test")]
        values |= {
            "parameters": str(found[0]["parameters"]),
            "GMAC a clip": f"{found[0]['gmac_per_clip']:.3g}",
            "training minutes": f"{minutes:.1f}",
            "accuracy %": _mean_and_std(100 * np.array(tested)),
        }
    return values


def _mean_and_std(values: np.ndarray) -> str:
    """Mean and, of two or more, the sample's standard deviation."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if len(values) else ""
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def _markdown(lines: list[dict[str, str]]) -> str:
    def row(cells) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    head = row(COLUMNS) + "|" + "---|" * len(COLUMNS) + "\n"
    return head + "".join(row(line[name] for name in COLUMNS) for line in lines)
