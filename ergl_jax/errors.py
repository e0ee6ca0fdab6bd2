"""The error that a user's input earns, and what a command makes of it and of signals."""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM"}
GO_ON = "what was left behind, the same command takes it up again"


class InputError(ValueError):
    """A wrong file, field or value; the message is one line that names it and says what to do.

    Command-line programs print the message without a traceback and exit with status 2.
    """


class Stopped(BaseException):
    """SIGTERM came; the message is one line that says what is saved.

    Like KeyboardInterrupt it is no Exception, so that nothing takes it for a failure of its own.
    """


def command(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Decorates a program's `main`, which returns its exit status: 2 for an InputError.

    130 where Ctrl-C stops it, 143 where SIGTERM does (128 and the signal's number, as shells count:
    to a scheduler the job is not done), 1 where nobody reads its output on (`... | head`). None
    leaves a traceback.
    """

    @functools.wraps(main)
    def reported(*arguments):
        try:
            with _handling({signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _raise}):
                return main(*arguments)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"{STOPS[signal.SIGINT]}; {GO_ON}", file=sys.stderr)
            return 128 + signal.SIGINT
        except Stopped as stop:
            print(stop, file=sys.stderr)
            return 128 + signal.SIGTERM
        except BrokenPipeError:
            # What is still in the buffer goes nowhere, or Python would complain at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1

    return reported


def leave_at_once() -> None:
    """Has SIGINT and SIGTERM end the program in a line: for a program that still imports."""

    def leave(number: int, _) -> None:
        os.write(2, f"{STOPS[number]}; {GO_ON}\n".encode())
        os._exit(128 + number)  # an exception might end in an import that catches it

    for number in STOPS:
        signal.signal(number, leave)


@contextlib.contextmanager
def postponed_sigterm() -> Iterator[list[int]]:
    """Lends a list that SIGTERM fills, so that the borrower can leave where nothing is lost."""
    came: list[int] = []
    with _handling({signal.SIGTERM: lambda number, _: came.append(number)}):
        yield came


def _raise(*_) -> None:
    raise Stopped(f"{STOPS[signal.SIGTERM]}; {GO_ON}")


@contextlib.contextmanager
def _handling(handlers: dict[int, Callable]) -> Iterator[None]:
    """Handlers of signals for a while; none outside the main thread, where Python allows none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
