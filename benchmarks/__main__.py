"""Runs one benchmark and writes its figures as JSON, or prints all such figures.

    python -m benchmarks --what=log_mel --rounds 7
    python -m benchmarks --render

The first prints a table and writes it to benchmarks/results/log_mel.json, with the machine,
versions and commit; --json names another file. All other flags are the benchmark's own:
`python -m benchmarks --what=log_mel --help`. The second prints benchmarks/results as Markdown.
"""

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
sys.path.insert(0, str(HERE))

import harness  # noqa: E402

from ergl_jax.files import check_directory, local_path, make_directory  # noqa: E402

RESULTS = HERE / "results"
WHAT = (
    *("device", "train_step", "epoch", "memory", "forward", "edges", "log_mel"),
    *("pseudo_label", "tagging", "startup", "growth", "layers", "leaks", "decoding"),
)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "librosa", "torch")


def git(*arguments: str) -> str:
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def circumstances() -> dict:
    """Date, machine, environment, versions and commit of a benchmark."""
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
            "system": " ".join((platform.system(), platform.machine(), *platform.libc_ver())),
            "processor": processor,
            "cores": len(os.sched_getaffinity(0)),
        },
        "environment": environment,
        "versions": versions,
        "commit": git("rev-parse", "HEAD"),
        # Whether other code than the commit's ran; new figures of other benchmarks don't count.
        "changed": bool(git("status", "--porcelain", ":/", ":!results")),
    }


def render() -> str:
    """All figures in RESULTS as Markdown, in the order of WHAT."""
    found = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))
    ]
    parts = []
    for one in sorted(found, key=lambda one: WHAT.index(one["benchmark"])):
        machine, commit = one["machine"], one["commit"][:10]
        versions = ", ".join(f"{name} {number}" for name, number in one["versions"].items())
        environment = " ".join(f"{name}={value}" for name, value in one["environment"].items())
        command = " ".join(["python -m benchmarks", f"--what={one['benchmark']}", *one["flags"]])
        parts += [
            f"## {one['title']}",
            f"`{command}`",
            f"{one['date']}; {machine['processor']}, {machine['cores']} cores; {versions}; "
            f"{f'`{environment}`; ' if environment else ''}commit {commit}"
            f"{' with changes' if one['changed'] else ''}.",
            *(harness.table(table["header"], table["rows"]) for table in one["tables"]),
        ]
    return "\n\n".join(parts)


def main() -> None:
    # Without --help of its own where a benchmark is named, whose help is printed instead.
    parser = harness.Parser(
        prog="python -m benchmarks",
        description=__doc__.partition("\n")[0],
        add_help=False,
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--what", choices=WHAT)
    what.add_argument("--render", action="store_true", help="print all of results/")
    parser.add_argument(
        "--json", type=local_path, help="default: results/<what>.json beside this file"
    )
    if sys.argv[1:] in ([], ["-h"], ["--help"]):
        parser.print_help()
        return
    options, rest = parser.parse_known_args()
    if options.json:
        check_directory(options.json.parent, "--json's directory")
    if options.render:
        print(render())
        return
    tables, write = [], harness.table

    def table(header: list[str], rows: list[list]) -> str:
        tables.append({"header": header, "rows": rows})
        return write(header, rows)

    harness.table = table
    found = {"benchmark": options.what, "flags": rest} | circumstances()
    script = HERE / f"{options.what}.py"
    sys.argv = [str(script), *rest]
    done = runpy.run_path(str(script), run_name="__main__")
    found["title"] = done["__doc__"].partition("\n")[0].rstrip(".")
    path = options.json or RESULTS / f"{options.what}.json"
    make_directory(path.parent, "--json's directory")
    path.write_text(json.dumps(found | {"tables": tables}, indent=1) + "\n", encoding="utf-8")
    print(f"\nWrote {path}")


if __name__ == "__main__":
    harness.start(main)
