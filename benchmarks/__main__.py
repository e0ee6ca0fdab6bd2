"""One of the benchmarks, its figures as JSON beside the table it prints.

    python -m benchmarks --what=log_mel --json=log_mel.json --rounds 7

All other flags are the benchmark's own: `python -m benchmarks --what=log_mel --help`. The JSON says
on which machine, with which versions and of which commit the figures are.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import runpy
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WHAT = tuple("edges forward growth layers leaks log_mel pseudo_label startup train_step".split())
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "librosa", "torch")


def circumstances() -> dict:
    """Where and of what a benchmark is run."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        processor = platform.processor()
    named = ("GLIBC_TUNABLES", "XLA_FLAGS")
    environment = {k: v for k, v in os.environ.items() if k.startswith("JAX_") or k in named}
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "machine": {
            "system": platform.platform(),
            "processor": processor,
            "cores": len(os.sched_getaffinity(0)),
        },
        "environment": environment,
        "versions": versions,
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain")),  # what ran is not that commit
    }


def main() -> None:
    # No help of its own where a benchmark is named: that one's flags are asked for.
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__.splitlines()[0],
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("--what", required=True, choices=WHAT)
    parser.add_argument("--json", type=Path, help="by default <what>.json")
    options, rest = parser.parse_known_args()
    sys.path.insert(0, str(HERE))
    import harness

    tables, write = [], harness.table

    def table(header: list[str], rows: list[list]) -> str:
        tables.append({"header": header, "rows": rows})
        return write(header, rows)

    harness.table = table
    found = {"benchmark": options.what, "flags": rest} | circumstances()
    script = HERE / f"{options.what}.py"
    sys.argv = [str(script), *rest]
    runpy.run_path(str(script), run_name="__main__")
    path = options.json or Path(f"{options.what}.json")
    path.write_text(json.dumps(found | {"tables": tables}, indent=1) + "\n", encoding="utf-8")
    print(f"\nWrote {path}")


if __name__ == "__main__":
    main()
