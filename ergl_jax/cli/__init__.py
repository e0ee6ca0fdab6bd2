"""The `ergl` command: `ergl classify`, `ergl explain` and so on.

Each subcommand is a module here with HELP, `add_arguments(parser)`, `run(args) -> status` and,
where JAX is to be set up otherwise, `start()`. It imports slow modules only when it runs.
"""

import argparse
import importlib
import io
import sys

import ergl_jax
from ergl_jax.cache import use_caches
from ergl_jax.errors import Parser, command
from ergl_jax.kernels.cpu import use_threaded_convolutions

COMMANDS = (
    "train",
    "classify",
    "tag",
    "explain",
    "evaluate",
    "compare",
    "atlas",
    "export",
    "push",
    "demo",
    "models",
    "doctor",
)


@command(resumes=lambda: sys.argv[1:2] == ["train"])
def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand and returns its exit status; 2 for wrong input."""
    description = "Classifies acoustic scenes with a graph of sound events."
    parser = Parser(prog="ergl", description=description)
    parser.add_argument("--version", action="version", version=ergl_jax.__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = importlib.import_module(f"ergl_jax.cli.{name}")
        subparser = subparsers.add_parser(name, help=module.HELP, description=module.__doc__)
        subparser.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(subparser)
        start = getattr(module, "start", use_threaded_convolutions)
        subparser.set_defaults(run=module.run, start=start)
    args, unknown = parser.parse_known_args(argv)
    if unknown:  # by the subcommand's parser, which names its own --help
        subparsers.choices[args.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names with bytes that are not UTF-8, or unknown to the terminal, stay distinct.
            stream.reconfigure(errors="backslashreplace")
    if argv is None:  # as a program: JAX isn't initialised yet
        args.start()
    use_caches()
    return args.run(args)
