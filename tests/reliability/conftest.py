"""run.py, started many times and killed many times."""

import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass
class Started:
    """A running run.py."""

    pid: int
    log: Path
    ends: queue.Queue

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 300) -> int:
        """Its exit status; minus the number of the signal that ended it."""
        return self.ends.get(timeout=seconds)

    def until(self, condition) -> None:
        """Waits for a condition of its files or output, polling as fast as possible."""
        limit = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < limit and self.ends.empty(), self.output()
            time.sleep(0.0005)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL, self.output()

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def last_lines(self) -> list[str]:
        """Its lines without the progress bar."""
        lines = [line.split("\r")[-1] for line in self.output().split("\n")]
        return [line for line in lines if line and not line.startswith("epochs:")]


class Starter:
    """The process that runs tests/reliability/starter.py."""

    def __init__(self, directory: Path):
        self.directory, self.count = directory, 0
        self.pids, self.ends = queue.Queue(), {}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("starter.py")), str(ROOT)],
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            pid, status = json.loads(line)
            if status is None:
                self.ends[pid] = queue.Queue()
                self.pids.put(pid)
            else:
                self.ends[pid].put(status)

    def __call__(self, *argv: str, hook: str = "") -> Started:
        """run.py with these arguments, after the Python source `hook`."""
        self.count += 1
        log = self.directory / f"{self.count}.log"
        order = {"argv": [str(x) for x in argv], "log": str(log), "hook": hook}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        pid = self.pids.get(timeout=60)
        return Started(pid, log, self.ends[pid])

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Starts run.py, on one device of a CPU: see `Starter.__call__`."""
    starter = Starter(tmp_path_factory.mktemp("logs"))
    yield starter
    starter.close()
