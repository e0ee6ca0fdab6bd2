"""The program `ergl`, also `python -m ergl_jax`."""

import sys

from ergl_jax.errors import leave_at_once


def main() -> int | None:
    """`ergl_jax.cli.main` in a process of its own."""
    leave_at_once()  # during slow imports
    from ergl_jax import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
