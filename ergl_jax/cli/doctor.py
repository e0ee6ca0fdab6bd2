"""Prints what is installed and whether it works, as text for a bug report.

    ergl doctor
    ergl doctor --bundle runs/synthetic/bundle

Writes only to a temporary directory and to the cache of compiled programs. Prints neither network
addresses nor your name; your home directory is written as ~.

Exit status: 0, or 1 if a check failed.
"""

import argparse

from ergl_jax.cli.recordings import add_bundle

HELP = "print what is installed and whether it works"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)


def run(args: argparse.Namespace) -> int:
    from ergl_jax.inference import doctor

    failures = 0
    for topic, text, failed in doctor.examine(args.bundle):
        mark = "FAILED: " if failed else ""
        print(doctor.private(f"{topic + ':':20} {mark}{text}"), flush=True)
        failures += failed
    print(f"{failures} checks failed" if failures else "no check failed")
    return 1 if failures else 0
