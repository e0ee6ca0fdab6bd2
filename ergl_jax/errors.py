"""The error that a user's input earns, and what a command makes of it."""

import functools
import sys
from collections.abc import Callable


class InputError(ValueError):
    """A wrong file, field or value; the message is one line that names it and says what to do.

    Command-line programs print the message without a traceback and exit with status 2.
    """


def command(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Decorates a program's `main`, which returns its exit status: 2 for an InputError.

    130 where Ctrl-C stops it. Both are a line on standard error and no traceback.
    """

    @functools.wraps(main)
    def reported(*arguments):
        try:
            return main(*arguments)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("interrupted; the same command takes it up again", file=sys.stderr)
            return 130

    return reported
