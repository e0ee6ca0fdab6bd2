"""User-facing errors, and signal handling of command-line programs."""

import argparse
import atexit
import contextlib
import functools
import importlib.util
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator

Handlers = dict[int, Callable]
STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM"}


class InputError(ValueError, argparse.ArgumentTypeError):
    """A wrong file, field or value; the message is one line that names it and the remedy.

    Command-line programs print the message without a traceback and exit with status 2. The `type`
    of a flag may raise it too: argparse then puts the flag's name before the message.
    """


class MultilineInputError(InputError):
    """With a message of several lines, such as how to get missing data."""


class Stopped(BaseException):
    """Raised after SIGTERM; the message, if any, is one line about what is saved.

    Like KeyboardInterrupt it is not an Exception, so that `except Exception` does not catch it.
    """


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises InputError for a wrong flag, one line without the usage."""

    def error(self, message: str):
        raise InputError(f"{message} (see {self.prog} --help)")


def require(package: str, extra: str, where: str = "") -> None:
    """InputError, beginning with `where`, unless a package of setup.cfg's `extra` is installed."""
    if not importlib.util.find_spec(package):
        raise InputError(
            f'{where}{package} is not installed: pip install ".[{extra}]" in a checkout of ergl_jax'
        )


def report(error: InputError) -> None:
    """Prints an error on standard error; escapes line breaks and the like in names of files."""
    kept = "\n" if isinstance(error, MultilineInputError) else ""
    print(f"error: {escaped(str(error), kept)}", file=sys.stderr, flush=True)


@functools.cache
def warn(text: str, kind: str = "warning") -> None:
    """Prints a warning, one line on standard error, escaped as by `report`; each text once."""
    print(f"{kind}: {escaped(text)}", file=sys.stderr, flush=True)


def escaped(text: str, kept: str = "") -> str:
    """Escapes unprintable characters, as in `repr`, except those in `kept`."""
    return "".join(x if x in kept or x.isprintable() else repr(x)[1:-1] for x in text)


def command(
    *, resumes: bool | Callable[[], bool]
) -> Callable[[Callable], Callable[..., int | None]]:
    """Decorates a program's `main`: errors and signals become exit statuses without a traceback.

    2 for an InputError, 130 for Ctrl-C and 143 for SIGTERM (128 plus the signal's number, as in
    shells), 1 if its output is no longer read (`... | head`). `resumes` is whether the same command
    continues a stopped one, or a function that returns that, called after a stop.
    """

    def hint() -> str:
        continues = resumes() if callable(resumes) else resumes
        return "; the same command continues it" if continues else ""

    handlers: Handlers = {
        signal.SIGINT: _raising(KeyboardInterrupt),
        signal.SIGTERM: _raising(Stopped),
    }

    def decorate(main: Callable[..., int | None]) -> Callable[..., int | None]:
        @functools.wraps(main)
        def wrapper(*arguments):
            try:
                with _handling(handlers), _no_interrupt_lost():
                    status = main(*arguments)
                    sys.stdout.flush()  # a signal from here on ends the program at once
                    return status
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
                print(f"{STOPS[signal.SIGINT]}{hint()}", file=sys.stderr)
                return _stopped(signal.SIGINT)
            except Stopped as stop:
                print(str(stop) or f"{STOPS[signal.SIGTERM]}{hint()}", file=sys.stderr)
                return _stopped(signal.SIGTERM)
            except BrokenPipeError:
                # Discards what is still in the buffer, or Python would complain when it exits.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1

        return wrapper

    return decorate


def is_missing_platform(error: Exception) -> bool:
    """Whether JAX raised it because the platform in JAX_PLATFORMS is not available."""
    if isinstance(error, AssertionError):  # for CUDA without a GPU, with an empty message
        frames = traceback.extract_tb(error.__traceback__)
        return "JAX_PLATFORMS" in os.environ and frames[-1].filename.endswith("xla_bridge.py")
    return str(error).startswith("Unable to initialize backend")


@contextlib.contextmanager
def _no_interrupt_lost() -> Iterator[None]:
    """Repeats a signal that arrived in a destructor or a C callback, which can't raise."""
    before = sys.unraisablehook

    def hook(unraisable) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt | Stopped):
            stopped = issubclass(unraisable.exc_type, Stopped)
            _send_later(signal.SIGTERM if stopped else signal.SIGINT)  # here it would be lost again
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


_signal = 0  # that stopped this program


def leave_at_once() -> None:
    """Makes Ctrl-C and SIGTERM end the program with one line until `main` runs (slow imports).

    If a signal stops it later, it exits without Python's cleanup, in which JAX can crash.
    """
    atexit.register(_leave_if_stopped)  # before the imports: the first one registered runs last

    def leave(number: int, _) -> None:
        os.write(2, f"{STOPS[signal.Signals(number)]}\n".encode())
        os._exit(128 + number)  # an exception could be caught in an import

    for number in STOPS:
        signal.signal(number, leave)


@contextlib.contextmanager
def postponed_sigterm() -> Iterator[list[int]]:
    """Yields a list to which SIGTERM appends, for a program that stops at a point of its own."""
    came: list[int] = []
    with _handling({signal.SIGTERM: lambda number, _: came.append(number)}):
        yield came


@contextlib.contextmanager
def postponed_interrupt() -> Iterator[None]:
    """Postpones Ctrl-C until the end of the block, which must be short; a second Ctrl-C
    interrupts at once."""
    came: list[int] = []

    def note(number: int, frame) -> None:
        if came:
            signal.default_int_handler(number, frame)
        came.append(number)

    with _handling({signal.SIGINT: note}):
        yield
    if came:
        raise KeyboardInterrupt


def _raising(error: type[BaseException]) -> Callable:
    """Returns a signal handler that raises `error`, but not before a running import has ended.

    C++ modules, such as NumPy's and JAX's, crash if an exception interrupts their import.
    """

    def handler(number: int, frame: types.FrameType | None) -> None:
        while frame:
            if "importlib._bootstrap" in frame.f_code.co_filename:
                _send_later(number)
                return
            frame = frame.f_back
        raise error

    return handler


def _send_later(number: int) -> None:
    """Sends a signal to the main thread in a moment."""
    main = threading.main_thread().ident
    threading.Timer(0.05, signal.pthread_kill, (main, number)).start()


def _stopped(number: int) -> int:
    """The exit status after a signal."""
    global _signal
    _signal = number
    return 128 + number


def _leave_if_stopped() -> None:
    """Exits at once: deleting JAX's client while a thread still compiles would crash."""
    if not _signal:
        return
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(128 + _signal)


@contextlib.contextmanager
def _handling(handlers: Handlers) -> Iterator[None]:
    """Sets signal handlers for a while; only in the main thread, as Python requires."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
