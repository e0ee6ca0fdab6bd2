"""The error that a user's input earns, and what a command makes of it."""

import argparse
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator


class InputError(ValueError, argparse.ArgumentTypeError):
    """A wrong file, field or value; the message is one line that names it and says what to do.

    Command-line programs print the message without a traceback and exit with status 2. The `type`
    of a flag may raise it too: the flag's name is then put before the message.
    """


class InputErrorOnAScreen(InputError):
    """One whose message is several lines: how to get what is missing."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser to which a wrong flag is an InputError, one line without the usage."""

    def error(self, message: str):
        raise InputError(f"{message} (see {self.prog} --help)")


def report(error: InputError) -> None:
    """Tells of an error on standard error, in one line whatever names of files hold."""
    kept = "\n" if isinstance(error, InputErrorOnAScreen) else ""
    text = "".join(x if x in kept or x.isprintable() else repr(x)[1:-1] for x in str(error))
    print(f"error: {text}", file=sys.stderr, flush=True)


def command(*, resumes: bool) -> Callable[[Callable], Callable[..., int | None]]:
    """Decorates a program's `main`, which returns its exit status: 2 for an InputError.

    130 where Ctrl-C stops it, 1 where nobody reads its output on (`... | head`). None leaves a
    traceback. `resumes` is whether the same command goes on with what an interrupted one has done.
    """

    def decorate(main: Callable[..., int | None]) -> Callable[..., int | None]:
        @functools.wraps(main)
        def reported(*arguments):
            try:
                with _no_interrupt_lost():
                    return main(*arguments)
            except InputError as error:
                report(error)
                return 2
            except KeyboardInterrupt:
                goes_on = "; the same command goes on with what is done" if resumes else ""
                print(f"interrupted{goes_on}", file=sys.stderr)
                return 130
            except BrokenPipeError:
                # What is still in the buffer goes nowhere, or Python would complain at its end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1

        return reported

    return decorate


@contextlib.contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """Interrupts again where Ctrl-C fell into what can't raise: a destructor or a C callback."""
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread:  # Python allows no other; it ends what `leave_at_once` began
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = sys.unraisablehook

    def hook(unraisable) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Later and from a thread: here it would be lost once more.
            main = threading.main_thread().ident
            threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
        if main_thread:
            signal.signal(signal.SIGINT, handler or signal.SIG_DFL)


def leave_at_once() -> None:
    """Has Ctrl-C end the program in a line, until its `main` runs: for what is slow to import."""

    def leave(*_) -> None:
        os.write(2, b"interrupted\n")
        os._exit(130)  # an exception might end in an import that catches it

    signal.signal(signal.SIGINT, leave)
