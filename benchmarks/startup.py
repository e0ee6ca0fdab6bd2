"""Seconds from the start of the quickstart to the end of its first step and of its first epoch.

    python benchmarks/startup.py

`python run.py --config=configs/ergl.py:synthetic` in new processes, in turn: without cached
programs, and with those of the run before (ergl_jax/cache.py). The corpus is made before anything
is timed. The epoch's losses show whether both compute the same.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import harness

CONFIG = "--config=configs/ergl.py:synthetic"


def child(begin: float, arguments: list[str]) -> None:
    """run.py until its first epoch ends: prints when that and the first step end, and losses."""
    import runpy

    import jax

    from ergl_jax.training.step import Trainer

    found, epoch, init = {}, Trainer.epoch, Trainer.__init__

    def timed_init(self, *args, **kwargs):
        init(self, *args, **kwargs)
        step = self.resident_step_program

        def timed_step(*args):
            result = jax.block_until_ready(step(*args))
            found.setdefault("first step", time.time() - begin)
            return result

        self.resident_step_program = timed_step

    def timed_epoch(*args, **kwargs):
        _, metrics = epoch(*args, **kwargs)
        found["first epoch"] = time.time() - begin
        print(json.dumps(found | {"loss": [float(x).hex() for x in metrics["loss"]]}), flush=True)
        os._exit(0)

    Trainer.__init__, Trainer.epoch = timed_init, timed_epoch
    sys.argv = ["run.py", *arguments]
    runpy.run_path(str(harness.REPOSITORY / "run.py"), run_name="__main__")


def start_run(cache: Path, options) -> dict:
    """`child` in a new process that caches its programs in `cache`."""
    with tempfile.TemporaryDirectory() as workdir:
        flags = [CONFIG, f"--workdir={workdir}/run", f"--config.data.data_dir={options.data_dir}"]
        environment = dict(os.environ) | {
            "XDG_CACHE_HOME": str(cache),
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # so that run.py doesn't restart itself
        }
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        arguments = ("--child", str(time.time()), *flags, *options.overrides)
        return harness.run_script(__file__, *arguments, environment=environment)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), sys.argv[3:])
        return
    parser = harness.parser(__doc__, rounds=5)
    parser.add_argument("--data-dir", default="data/prepared", help="of the synthetic corpus")
    parser.add_argument("overrides", nargs="*", help="--config.field=value, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as first:
        start_run(Path(first), options)  # makes the corpus if need be
    found = {"cold": [], "cached programs": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for each in found.values():
                each.append(start_run(Path(cache), options))
    losses = {tuple(run["loss"]) for runs in found.values() for run in runs}
    print("losses are", "the same, bit for bit" if len(losses) == 1 else "not the same")
    rows = []
    for name, runs in found.items():
        for what in ("first step", "first epoch"):
            each = [run[what] for run in runs]
            median, span = statistics.median(each), f"{min(each):.1f} to {max(each):.1f}"
            rows.append([name, what, f"{median:.1f} s", span])
    print(harness.table(["", "until the end of the", "median", "all rounds, s"], rows))


if __name__ == "__main__":
    harness.start(main)
