"""Tells what is installed here and whether it works, as text to paste into a report.

    ergl doctor
    ergl doctor --bundle runs/synthetic/bundle

Writes to a temporary directory and to the cache of compiled programs alone, and says nothing of the
network or of you: your home directory is written ~.

Exit status: 0, or 1 where a check failed.
"""

import argparse

from ergl_jax.files import user_path

HELP = "tell what is installed and whether it works"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=user_path, help="directory of a bundle to try")


def run(args: argparse.Namespace) -> int:
    from ergl_jax.inference import doctor

    failures = 0
    for line in doctor.examine(args.bundle):
        mark = "FAILED: " if line.failed else ""
        print(doctor.private(f"{line.topic + ':':20} {mark}{line.text}"), flush=True)
        failures += line.failed
    print(f"{failures} of the checks failed" if failures else "no check failed")
    return 1 if failures else 0
