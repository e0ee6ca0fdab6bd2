"""The error that a user's input earns, and what a command makes of it."""

import functools
import os
import sys
from collections.abc import Callable


class InputError(ValueError):
    """A wrong file, field or value; the message is one line that names it and says what to do.

    Command-line programs print the message without a traceback and exit with status 2.
    """


def command(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Decorates a program's `main`, which returns its exit status: 2 for an InputError.

    130 where Ctrl-C stops it, 1 where nobody reads its output on (`... | head`). None leaves a
    traceback.
    """

    @functools.wraps(main)
    def reported(*arguments):
        try:
            return main(*arguments)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(
                "interrupted; what was left behind, the same command takes it up again",
                file=sys.stderr,
            )
            return 130
        except BrokenPipeError:
            # What is still in the buffer goes nowhere, or Python would complain at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1

    return reported
