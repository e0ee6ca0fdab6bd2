"""Trains or evaluates ERGL: `python run.py --config=configs/ergl.py:synthetic`."""

if __name__ == "__main__":
    from ergl_jax.cpu import use_huge_pages
    from ergl_jax.errors import leave_at_once

    leave_at_once()  # until `main` runs
    use_huge_pages()  # it starts the program again: before the slow imports

import math
import sys
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from configs import ergl, tables
from ergl_jax import schema
from ergl_jax.cache import use_compilation_cache
from ergl_jax.cpu import use_barriers, use_cores
from ergl_jax.errors import InputError, command, report
from ergl_jax.files import user_path
from ergl_jax.recipes import tables as training_tables
from ergl_jax.training import hosts, train, workdirs

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/ergl.py[:source]; override a field with --config.field=value."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run's files are kept; default runs/<source>-<model>."
)
FRESH = flags.DEFINE_bool(
    "fresh", False, "Where the workdir exists, start anew beside it: in <workdir>-2, -3, ..."
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "One of several processes, as SLURM, Open MPI or a TPU slice says: see docs/distributed.md.",
)
COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, where nothing tells it by itself."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many there are.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this one is, from 0.", lower_bound=0
)
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do in the workdir.")


def parse_flags(argv: list[str]) -> list[str]:
    """Flags as absl reads them, but a mistake in one is a line and no traceback."""
    try:
        arguments = flags.FLAGS(argv)
        getattr(CONFIG.value, "lock", None)  # an OSError for a file that can't be read
        if not isinstance(CONFIG.value, ConfigDict):
            raise TypeError("get_config() of the file returns no ConfigDict")
        return arguments
    except (AttributeError, KeyError) as error:
        # Quoted once or twice on its way, line breaks and all.
        name = str(error).replace("\\n", ", ").replace("\\", "").replace("'", "").strip('"')
        reason = f"no such field of the configuration, which configs/ergl.py lists: {name}"
        if any("tables.py" in argument for argument in argv):
            reason = (
                f"no such field of configs/tables.py: {name}; --config.overrides sets those of rows"
            )
        if "get_config" in name:
            reason = f"{' '.join(argv[1:])}: the file has no get_config()"
    except (flags.Error, OSError) as error:
        reason = str(error).splitlines()[-1].strip()  # below a config file's own traceback, if any
    except Exception as error:  # of a config file, or of what reads overrides
        reason = f"{' '.join(argv[1:])}: {type(error).__name__}: {error}"
    report(InputError(reason))
    sys.exit(2)


@hosts.exit_together
@command(resumes=True)
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag: write --name=value")
    logging.set_verbosity(logging.WARNING)  # Orbax tells much at INFO
    config = CONFIG.value
    example = tables.get_config() if "table" in config else ergl.get_config()
    schema.check(config.to_dict(), schema.schema_of(example.to_dict()), prefix="config.")
    rows = tables.rows(config) if "table" in config else []
    use_barriers()
    given = COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value
    if DISTRIBUTED.value or any(value is not None for value in given):
        hosts.start(*given)
    else:
        batches = [row.config.train.batch_size for row in rows] or [config.train.batch_size]
        use_cores(math.gcd(*batches))
    use_compilation_cache()
    if rows:
        name = f"runs/table-{config.table}-{config.source}"
    else:
        name = f"runs/{config.data.source}-{config.model.name}"
    workdir = user_path(name if WORKDIR.value is None else WORKDIR.value, "--workdir")
    if FRESH.value:
        if MODE.value != "train":
            raise InputError(f"--fresh starts a training: leave it out with --mode={MODE.value}")
        asked, workdir = workdir, workdirs.first_unused(workdir)
        if workdir != asked:
            print(f"{asked} stays as it is; to go on with this run, --workdir={workdir}")
    print(f"{MODE.value} in {workdir} on {jax.device_count()} {jax.default_backend()} device(s)")
    print(", ".join(f"{name} {number}" for name, number in workdirs.versions().items()), flush=True)
    if rows:
        train_table(config, rows, workdir)
    else:
        run(config, workdir)


def train_table(config: ConfigDict, rows: list[training_tables.Row], workdir: Path) -> None:
    """Trains the rows of configs/tables.py that are still to do, and prints the table."""
    if MODE.value != "train":
        raise InputError(f"--mode={MODE.value} is for a run: give its --config and --workdir")
    text = training_tables.run(rows, workdir, seeds=config.seeds, shard=config.shard)
    if hosts.is_main_process():
        print(f"{text}\nWrote {workdir}/table.md and {workdir}/table.csv")


def run(config: ConfigDict, workdir: Path) -> None:
    """Trains or evaluates one configuration, and prints its scores."""
    if MODE.value == "train":
        results = train.train(config, workdir)
        scores, wrote = results["test"], f"{workdir}/results.json and {workdir}/bundle"
    else:
        scores, wrote = train.evaluate_bundle(config, workdir), f"{workdir}/evaluation"
    if not hosts.is_main_process():
        return
    print(f"Wrote {wrote}")
    if scores is None:
        print("No test split: nothing was tested")
        return
    for name, value in scores.items():
        print(f"{name:33} {value if value is None else format(value, '.4f')}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
