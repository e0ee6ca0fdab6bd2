"""The error that a user's input earns, and what a command makes of it and of signals."""

import argparse
import contextlib
import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM"}


class InputError(ValueError, argparse.ArgumentTypeError):
    """A wrong file, field or value; the message is one line that names it and says what to do.

    Command-line programs print the message without a traceback and exit with status 2. The `type`
    of a flag may raise it too: the flag's name is then put before the message.
    """


class InputErrorOnAScreen(InputError):
    """One whose message is several lines: how to get what is missing."""


class Stopped(BaseException):
    """SIGTERM came; the message, if any, is one line that says what is saved.

    Like KeyboardInterrupt it is no Exception, so that nothing takes it for a failure of its own.
    """


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

    130 where Ctrl-C stops it, 143 where SIGTERM does (128 and the signal's number, as shells count:
    to a scheduler the job is not done), 1 where nobody reads its output on (`... | head`). None
    leaves a traceback. `resumes` is whether the same command goes on with what a stopped one has
    done.
    """
    goes_on = "; the same command goes on with what is done" if resumes else ""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _stop}

    def decorate(main: Callable[..., int | None]) -> Callable[..., int | None]:
        @functools.wraps(main)
        def reported(*arguments):
            try:
                with _handling(handlers), _no_interrupt_lost():
                    return main(*arguments)
            except InputError as error:
                report(error)
                return 2
            except (RuntimeError, AssertionError) as error:
                if not is_missing_platform(error):
                    raise
                platforms = os.environ.get("JAX_PLATFORMS", "")
                reason = str(error).splitlines()[0] if str(error) else "there is none; unset it"
                report(InputError(f"JAX_PLATFORMS={platforms!r}: {reason}"))
                return 2
            except KeyboardInterrupt:
                print(f"{STOPS[signal.SIGINT]}{goes_on}", file=sys.stderr)
                return 128 + signal.SIGINT
            except Stopped as stop:
                print(str(stop) or f"{STOPS[signal.SIGTERM]}{goes_on}", file=sys.stderr)
                return 128 + signal.SIGTERM
            except BrokenPipeError:
                # What is still in the buffer goes nowhere, or Python would complain at its end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1

        return reported

    return decorate


def is_missing_platform(error: Exception) -> bool:
    """Whether JAX raised it because what JAX_PLATFORMS names isn't there."""
    if isinstance(error, AssertionError):  # of CUDA without a GPU it has no words
        frames = traceback.extract_tb(error.__traceback__)
        return "JAX_PLATFORMS" in os.environ and frames[-1].filename.endswith("xla_bridge.py")
    return str(error).startswith("Unable to initialize backend")


@contextlib.contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """Interrupts again where Ctrl-C fell into what can't raise: a destructor or a C callback."""
    before = sys.unraisablehook

    def hook(unraisable) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt | Stopped):
            stopped = issubclass(unraisable.exc_type, Stopped)
            number = signal.SIGTERM if stopped else signal.SIGINT
            # Later and from a thread: here it would be lost once more.
            main = threading.main_thread().ident
            threading.Timer(0.05, signal.pthread_kill, (main, number)).start()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def leave_at_once() -> None:
    """Has Ctrl-C and SIGTERM end the program in a line, until its `main` runs.

    For what is slow to import.
    """

    def leave(number: int, _) -> None:
        os.write(2, f"{STOPS[number]}\n".encode())
        os._exit(128 + number)  # an exception might end in an import that catches it

    for number in STOPS:
        signal.signal(number, leave)


@contextlib.contextmanager
def postponed_sigterm() -> Iterator[list[int]]:
    """Lends a list that SIGTERM fills, so that the borrower can leave where nothing is lost."""
    came: list[int] = []
    with _handling({signal.SIGTERM: lambda number, _: came.append(number)}):
        yield came


def _stop(*_) -> None:
    raise Stopped


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
