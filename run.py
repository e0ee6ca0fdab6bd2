"""Trains or evaluates a model: `python run.py --config=configs/ergl.py:synthetic`."""

if __name__ == "__main__":
    from ergl_jax.errors import leave_at_once
    from ergl_jax.kernels.cpu import use_huge_pages

    leave_at_once()  # until `main` runs
    use_huge_pages()  # restarts the program, so before the slow imports

import math
import re
import sys

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from configs import ergl, tables
from ergl_jax.cache import use_caches
from ergl_jax.config import Config
from ergl_jax.errors import InputError, command, report
from ergl_jax.files import user_path
from ergl_jax.kernels.cpu import use_barriers, use_cores
from ergl_jax.recipes import stages
from ergl_jax.recipes import tables as recipe_tables
from ergl_jax.training import hosts, workdirs
from ergl_jax.training.evaluate import describe, evaluate_bundle

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/ergl.py[:source]; override a field with --config.field=value."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Work directory; default runs/<source>-<model>.")
FRESH = flags.DEFINE_bool(
    "fresh", False, "If the workdir exists, start a new run in <workdir>-2, -3, ..."
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Join the other processes of SLURM, Open MPI or a TPU slice: see docs/distributed.md.",
)
COORDINATOR_ADDRESS = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, outside SLURM and the like."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Index of this process, from 0.", lower_bound=0
)
MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "compile"],
    "Train in the workdir, evaluate its bundle, or compile for --topology.",
)
TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "compile: target chips (need not be installed): v5e:2x2, v5p:2x2x1, h100, h100:8, ...",
)
CLIPS = flags.DEFINE_integer(
    "clips", None, "compile: clips of the training split; default: the corpus's.", lower_bound=1
)
LARGEST_BATCH = flags.DEFINE_bool(
    "largest_batch", False, "compile: also find the largest batch that fits."
)


# absl's names of types
KINDS = {"int": "a whole number", "float": "a number", "bool": "True or False"}


def parse_flags(argv: list[str]) -> list[str]:
    """absl's flags, but a mistake is one line on stderr and status 2, without a traceback."""
    given = " ".join(argv[1:])
    try:
        arguments = flags.FLAGS(argv)
        getattr(CONFIG.value, "lock", None)  # raises OSError for an unreadable file
        if not isinstance(CONFIG.value, ConfigDict):
            raise TypeError("get_config() of the file returns no ConfigDict")
        return arguments
    except (AttributeError, KeyError) as error:
        reason = describe_unknown(error, argv)
    except flags.IllegalFlagValueError as error:
        reason = describe_illegal(error)
    except (flags.Error, OSError) as error:
        reason = str(error).splitlines()[-1].strip()  # the last line of a traceback, if any
    except Exception as error:  # of a config file, or of the parser of overrides
        reason = f"{given}: {type(error).__name__}: {error}"
    report(InputError(reason))
    sys.exit(2)


def describe_unknown(error: Exception, argv: list[str]) -> str:
    """What is wrong where ml_collections finds no field of a name, or no get_config."""
    text = str(error)
    if "get_config" in text:
        return f"{' '.join(argv[1:])}: the file has no get_config()"
    name = re.search(r"\w+", text.replace("\\n", " "))
    overrides = [arg.lstrip("-").partition("=")[0] for arg in argv if arg.startswith("--config.")]
    fields = [field for field in overrides if name and name[0] in field.split(".")]
    if not fields:  # an error in the file
        return f"{' '.join(argv[1:])}: {type(error).__name__}: {error}"
    reason = f"{fields[0]} is an unknown field"
    if meant := re.search(r"mean \W*(\w+)", text):
        reason += f'; did you mean "{meant[1]}"?'
    if any("tables.py" in arg for arg in argv):
        return f"{reason} of configs/tables.py; fields of rows are set with --config.overrides"
    return f"{reason} (see configs/ergl.py)"


def describe_illegal(error: Exception) -> str:
    """What is wrong with the value of a flag."""
    found = re.match(r"flag --(config\.[^=]+)=(.*?): ", str(error), re.DOTALL)
    kind = KINDS.get(flags.FLAGS[found[1]].parser.flag_type()) if found else None
    if not kind:
        return str(error).splitlines()[-1].strip()
    return f"{found[1]}={found[2]} is not {kind} (see configs/ergl.py)"


def default_workdir(config_file: str, config: Config) -> str:
    """runs/<source>-<model>; soundscapes, which are a folder too, count as a source."""
    argument = config_file.partition(":")[2].partition(",")[0]
    source = argument if argument in ergl.SOURCES else config.data.source
    return f"runs/{source}-{config.model.name}"


@hosts.exit_together
@command(resumes=lambda: MODE.value == "train")
def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"{argv[1]!r} is not a flag: write --name=value")
    logging.set_verbosity(logging.WARNING)  # Orbax logs much at INFO
    table = "table" in CONFIG.value
    if table:
        rows = tables.rows(CONFIG.value)
        configs = [row.config for row in rows]
        name = f"runs/table-{CONFIG.value.table}-{CONFIG.value.source}"
    else:
        configs = [Config.from_dict(CONFIG.value.to_dict())]
        name = default_workdir(flags.FLAGS["config"].config_filename, configs[0])
    if MODE.value == "compile":
        jax.config.update("jax_platforms", "cpu")  # compile without using any chip
    use_barriers()
    address = COORDINATOR_ADDRESS.value, NUM_PROCESSES.value, PROCESS_ID.value
    if DISTRIBUTED.value or any(value is not None for value in address):
        hosts.start(*address)
    else:
        use_cores(math.gcd(*(config.train.batch_size for config in configs)))
    use_caches()
    workdir = user_path(name if WORKDIR.value is None else WORKDIR.value, "--workdir")
    workdir = workdirs.of(workdir) if MODE.value == "evaluate" else workdir
    topology = TOPOLOGY.value or ""
    if MODE.value != "compile" and (topology or CLIPS.value or LARGEST_BATCH.value):
        raise InputError("--topology, --clips and --largest_batch need --mode=compile")
    if MODE.value == "compile" and not topology:
        raise InputError("--mode=compile needs --topology, such as v5e:2x2 or h100")
    if MODE.value != "train" and (FRESH.value or table):
        raise InputError(f"--mode={MODE.value} takes neither --fresh nor a table")
    if FRESH.value:
        requested, workdir = workdir, workdirs.first_unused(workdir)
        if workdir != requested:
            print(f"{requested} is unchanged; to resume the new run, use --workdir={workdir}")
    settings = f"{MODE.value} in {workdir}: {CONFIG.value.to_json()}"
    hosts.check_same(settings, "their flags", "give all the same")
    print(f"{MODE.value} in {workdir} on {jax.device_count()} {jax.default_backend()} device(s)")
    print(", ".join(f"{name} {number}" for name, number in workdirs.versions().items()), flush=True)
    if table:
        seeds, shard = CONFIG.value.seeds, CONFIG.value.shard
        text = recipe_tables.run(rows, workdir, seeds=seeds, shard=shard)
        lines = [text, f"Wrote {workdir}/table.md and {workdir}/table.csv"]
    elif MODE.value == "train":
        with workdirs.held(workdir):
            scores = stages.train(configs[0], workdir)["test"]
        tested = describe(scores) if scores else ["No test split: nothing was tested"]
        lines = [f"Wrote {workdir}/results.json and {workdir}/bundle", *tested]
    elif MODE.value == "compile":
        from ergl_jax.compiling import plan  # not above: training does without

        text = plan.run(
            configs[0],
            topology,
            workdir,
            clips=CLIPS.value,
            largest_batch=LARGEST_BATCH.value,
        )
        lines = [text, f"Wrote {workdir}/compile.json"]
    else:
        scores = evaluate_bundle(workdir, configs[0].data)
        lines = [f"Wrote {workdir}/evaluation", *describe(scores)]
    if hosts.is_main_process():
        print("\n".join(lines))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
