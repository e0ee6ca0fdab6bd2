"""One process at a time: who is refused, who waits, and whose lock is taken over."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ergl_jax import locks
from ergl_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
HOLDER = """
import pathlib, sys, time
from ergl_jax import locks
with locks.hold(pathlib.Path(sys.argv[1]), "runs/a", "choose another"):
    print("held", flush=True)
    sys.stdin.read()
"""
ELSEWHERE = {"host": "node7", "machine": "node7 of another boot", "pid": os.getpid()}


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "run" / "lock.json"


@pytest.fixture
def other(lock):
    """Another process that holds the lock until its standard input is closed."""
    command = [sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def hold(lock, **more):
    return locks.hold(lock, "runs/a", "choose another", **more)


def holder(lock, silence=0.0, **fields):
    """Writes the lock of a process that last updated it `silence` seconds ago."""
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(json.dumps(locks._me() | fields))
    past = time.time() - silence
    os.utime(lock, (past, past))


def refused(lock):
    with pytest.raises(locks.InUse) as caught, hold(lock):
        pytest.fail("two processes hold it")
    assert isinstance(caught.value, InputError) and "\n" not in str(caught.value)
    return str(caught.value)


def test_the_message_names_the_holder_and_its_start(lock, other):
    since = json.loads(lock.read_text())["since"]
    by = f"process {other.pid} on {socket.gethostname()} since {since}"
    assert refused(lock) == f"runs/a is in use by {by}: wait for it to end, or choose another"
    assert len(since) == len("2000-01-01 00:00:00")
    other.stdin.close()
    other.wait()
    with hold(lock):
        assert "in use" in refused(lock)
    assert not lock.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_holder_is_replaced_at_once_and_a_stopped_one_is_not(lock, other, number):
    other.send_signal(number)
    if number == signal.SIGSTOP:
        refused(lock)
        return
    other.wait()
    with hold(lock):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not list(lock.parent.glob("*"))


def test_a_process_that_only_has_the_holders_number_does_not_count(lock):
    holder(lock, started="1")
    with hold(lock):
        assert json.loads(lock.read_text())["started"] != "1"


def damaged(**fields):
    return json.dumps(locks._me() | fields)


@pytest.mark.parametrize(
    "text",
    [None, "", "{", "[]", "null", '{"pid": 1}']
    + [damaged(pid=pid) for pid in ("abc", None, True, 1.0, 10**30, 2**31, 0, -1)]
    + [damaged(host=1), damaged(since=None), damaged(machine=[]), damaged(started=0)],
)
def test_on_another_machine_updates_count(lock, text):
    """Also where the lock is damaged."""

    def found(silence):
        holder(lock, silence, **ELSEWHERE)
        if text is not None:
            lock.write_text(text)
            os.utime(lock, (time.time() - silence,) * 2)

    found(5)
    by = "process" if text is None else "another process"
    assert f"is in use by {by}" in refused(lock)
    assert text is not None or "on node7 since" in refused(lock)
    assert text is not None or "last update 5 s ago" in refused(lock)
    assert re.search(r"choose another\. .* run the same command again in 5[56] s$", refused(lock))
    found(locks.DEAD_SECONDS + 1)
    with hold(lock):
        pass


def test_one_that_is_late_is_waited_for(lock, monkeypatch, capsys):
    holder(lock, locks.DEAD_SECONDS - 1, **ELSEWHERE)
    with hold(lock):  # it stayed silent
        pass
    assert "last update 59 s ago: waiting" in capsys.readouterr().err
    holder(lock, 2 * locks.BEAT_SECONDS + 1, **ELSEWHERE)
    threading.Timer(0.5, os.utime, [lock]).start()
    assert "on node7" in refused(lock)


def test_a_holder_updates_its_lock_and_stops_when_that_was_taken(lock, monkeypatch, capsys):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.02)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt), hold(lock):
        os.utime(lock, (0, 0))
        limit = time.monotonic() + 20
        while not lock.stat().st_mtime and time.monotonic() < limit:
            time.sleep(0.01)
        assert lock.stat().st_mtime
        holder(lock, **ELSEWHERE)
        time.sleep(20)
    signal.signal(signal.SIGINT, before)
    err = capsys.readouterr().err
    assert f"stopping: {lock} is in use by process {os.getpid()} on node7" in err
    assert err.endswith(", which took it over\n")
    assert json.loads(lock.read_text())["host"] == "node7"  # it stays


def test_waiting_ends_when_the_other_does(lock, other, capsys):
    threading.Timer(0.3, other.stdin.close).start()
    with hold(lock, wait=True):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"runs/a is in use by process {other.pid}") and "waiting" in line


def test_of_many_that_find_a_dead_holder_one_takes_over(lock):
    for _ in range(20):
        holder(lock, started="1")
        inside, most, refusals = [], [], []
        barrier = threading.Barrier(6)

        def contend(inside=inside, most=most, refusals=refusals, barrier=barrier):
            barrier.wait()
            try:
                with hold(lock):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.01)
                    inside.pop()
            except locks.InUse:
                refusals.append(1)

        threads = [threading.Thread(target=contend) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most and set(most) == {1} and len(most) + len(refusals) == 6
        assert not list(lock.parent.glob("*"))


def test_a_failure_leaves_nothing_and_work_stays(tmp_path, lock):
    with pytest.raises(ZeroDivisionError), hold(lock):
        assert lock.exists()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with hold(lock):
        (lock.parent / "result").touch()
    assert [path.name for path in lock.parent.iterdir()] == ["result"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file"), hold(tmp_path / "file" / "lock.json"):
        pass


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_without_proc_updates_count(lock, other, monkeypatch, platform):
    """Also on the holder's machine, where another process may have got its number."""
    monkeypatch.setattr(locks, "_started", lambda pid: None)
    monkeypatch.setattr(locks, "_machine", lambda: platform)
    monkeypatch.setattr(sys, "platform", platform)
    holder(lock, silence=5)
    assert "last update 5 s ago" in refused(lock)
    holder(lock, silence=1000)
    with hold(lock):
        pass
    if platform == "darwin":  # where one that has ended is seen
        other.kill()
        other.wait()
        holder(lock, pid=other.pid)
        with hold(lock):
            pass
