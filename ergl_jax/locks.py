"""Lock files for work that only one process at a time may do.

A lock is created exclusively, which also works on network disks, and names its holder, which flock
cannot. The holder updates its modification time. Another process takes it over if the holder is
dead: at once if that can be seen (same machine and container, Linux), else after DEAD_SECONDS
without an update.
"""

import contextlib
import hashlib
import json
import math
import os
import platform
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ergl_jax.errors import InputError
from ergl_jax.files import is_remote, make_directory, writing

BEAT_SECONDS = 10.0  # between updates
DEAD_SECONDS = 60.0  # without one, after which a holder that can't be seen counts as dead


class InUse(InputError):
    """Another process holds the lock."""


@contextlib.contextmanager
def hold(path: Path, what: str, remedy: str, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock file `path`, which exists meanwhile; makes its directory if need be.

    Does nothing in a bucket, which has no exclusive files.

    Args:
      path: the lock file.
      what: is in use, for the message.
      remedy: the end of the message, what to do besides waiting.
      wait: until it is free, with a note on stderr, instead of raising InUse.
    """
    if is_remote(path):
        yield
        return
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    text = json.dumps(_me())
    try:
        _acquire(path, text, what, remedy, wait)
        ended = threading.Event()
        threading.Thread(target=_beat, args=(path, text, ended), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            if _read(path) == text:
                path.unlink(missing_ok=True)
    finally:
        for folder in made:  # where nothing else was written
            with contextlib.suppress(OSError):
                folder.rmdir()


def _acquire(path: Path, text: str, what: str, remedy: str, wait: bool) -> None:
    noted = False
    while not _create(path, text):
        if (theirs := _read(path)) is None:
            continue  # it was released just now
        holder, silence = _parsed(theirs), _silence(path)
        if not holder and silence < 1:  # it is just being written
            time.sleep(0.05)
            continue
        lives = _lives(holder)
        if lives is False or lives is None and silence >= DEAD_SECONDS:
            _remove(path, theirs)
            continue
        used = f"{what} {_by(holder, lives, silence)}"
        # A late holder updates it soon, or counts as dead.
        if not wait and (lives or silence < 2 * BEAT_SECONDS):
            text = f"{used}: wait for it to end, or {remedy}"
            if lives is None:
                rest = math.ceil(DEAD_SECONDS - silence)
                text += f". If it has ended, run the same command again in {rest} s"
            raise InUse(text)
        if not noted:
            print(f"{used}: waiting", file=sys.stderr, flush=True)
        noted = True
        time.sleep(1)


def _create(path: Path, text: str = "") -> bool:
    """Makes a file with this text; False if there is one."""
    make_directory(path.parent, "directory")
    with writing(path):
        try:
            number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        except FileNotFoundError:  # the directory was just removed by a process that failed
            return False
        with open(number, "w", encoding="utf-8") as file:
            file.write(text)
    return True


def _remove(path: Path, text: str) -> None:
    """Removes the lock of a dead holder, unless another process has just done so."""
    # Of all processes that found this holder dead, one removes its lock: the one that makes this.
    claim = path.with_name(f"{path.name}.{hashlib.sha256(text.encode()).hexdigest()[:12]}")
    if not _create(claim):
        with contextlib.suppress(OSError):
            if _silence(claim) > DEAD_SECONDS:  # its maker died too
                claim.unlink()
        time.sleep(0.05)
        return
    try:
        if _read(path) == text:
            path.unlink()
    finally:
        claim.unlink(missing_ok=True)


def _beat(path: Path, text: str, ended: threading.Event) -> None:
    """Updates the lock; stops the program if it was taken over, after a long sleep."""
    while not ended.wait(BEAT_SECONDS):
        found = _read(path)
        if found == text:
            with contextlib.suppress(OSError):
                os.utime(path)
        elif found and not ended.is_set():
            by = _by(_parsed(found), None, 0.0)
            print(f"stopping: {path} {by}, which took it over", file=sys.stderr, flush=True)
            # To the main thread, whatever it waits for; on Windows when it wakes up.
            main = threading.main_thread().ident
            if hasattr(signal, "pthread_kill") and main:
                signal.pthread_kill(main, signal.SIGINT)
            else:
                signal.raise_signal(signal.SIGINT)
            return


def _read(path: Path) -> str | None:
    """A lock's text, "" if it may not be read; None if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _parsed(text: str) -> dict[str, Any]:
    """The fields of a lock; {} if it was damaged, or is just being written."""
    try:
        holder = json.loads(text)
        pid, started = holder["pid"], holder["started"]
        texts = [holder[name] for name in ("host", "since", "machine")]
        texts += [] if started is None else [started]
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    valid = type(pid) is int and 0 < pid < 2**31 and all(isinstance(x, str) for x in texts)
    return holder if valid else {}


def _me() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": _machine(),
        "started": _started(os.getpid()),
        "id": uuid.uuid4().hex,
    }


def _by(holder: dict[str, Any], lives: bool | None, silence: float) -> str:
    """Who holds a lock, and since when."""
    if not holder:
        return "is in use by another process"
    text = f"is in use by process {holder['pid']} on {holder['host']} since {holder['since']}"
    if lives is None and silence:
        text += f", last update {silence:.0f} s ago"
    return text


def _silence(path: Path) -> float:
    """Seconds since a lock's last update, by the clock of the disk it is on."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as probe:
            return os.fstat(probe.fileno()).st_mtime - path.stat().st_mtime
    except FileNotFoundError:  # released just now
        return 0.0


def _lives(holder: dict[str, Any]) -> bool | None:
    """Whether the holder's process still runs; None if that can't be seen from here."""
    if holder.get("machine") != _machine() or sys.platform == "win32":
        return None
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    started = _started(holder["pid"])
    if started is None or holder["started"] is None:
        return None  # another process may have its number
    return started == holder["started"]


def _machine() -> str:
    """This machine since it was started, and the container: where process numbers are the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{platform.node()} {platform.system()} {uuid.getnode()}"


def _started(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; "" if it has ended, None if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *numbers = fields.rpartition(")")[2].split()
    return "" if state in "ZX" else numbers[18]
