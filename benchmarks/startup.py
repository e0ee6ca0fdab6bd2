"""Seconds from the start of the quickstart to the end of its first step and of its first epoch.

    python benchmarks/startup.py

`python run.py --config=configs/ergl.py:synthetic` in processes of their own, in turn: without kept
programs, and with those of the run before (ergl_jax/cache.py). The corpus is there already; to make
it is another matter. The loss of the epoch says whether both compute the same. Prints a Markdown
table.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import harness

CONFIG = "--config=configs/ergl.py:synthetic"


def child(start: float, arguments: list[str]) -> None:
    """run.py, stopped after an epoch: prints when that and the first step ended, and the loss."""
    import runpy

    import jax

    from ergl_jax.training.step import Trainer

    found, epoch, init = {}, Trainer.epoch, Trainer.__init__

    def timed_init(self, *args, **kwargs):
        init(self, *args, **kwargs)
        step = self._resident_step

        def timed_step(*args):
            result = jax.block_until_ready(step(*args))
            found.setdefault("first step", time.time() - start)
            return result

        self._resident_step = timed_step

    def timed_epoch(*args, **kwargs):
        _, metrics = epoch(*args, **kwargs)
        found["first epoch"] = time.time() - start
        print(json.dumps(found | {"loss": [float(x).hex() for x in metrics["loss"]]}), flush=True)
        os._exit(0)

    Trainer.__init__, Trainer.epoch = timed_init, timed_epoch
    sys.argv = ["run.py", *arguments]
    runpy.run_path(str(harness.REPOSITORY / "run.py"), run_name="__main__")


def start_up(cache: Path, data_dir: str) -> dict:
    """`child` in a process of its own, its programs kept in `cache`."""
    with tempfile.TemporaryDirectory() as workdir:
        flags = [CONFIG, f"--workdir={workdir}/run", f"--config.data.data_dir={data_dir}"]
        # The second as run.py sets it, which can't start itself again here.
        ours = {"XDG_CACHE_HOME": str(cache), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        environment = os.environ | ours
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
        arguments = ("--child", str(time.time()), *flags)
        return harness.told_by(__file__, *arguments, environment=environment)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(float(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default="data/prepared", help="of the synthetic corpus")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as first:
        start_up(Path(first), options.data_dir)  # makes the corpus if need be
    found = {"cold": [], "kept programs": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for each in found.values():
                each.append(start_up(Path(cache), options.data_dir))
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
    main()
