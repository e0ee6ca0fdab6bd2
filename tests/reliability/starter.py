"""Starts run.py many times but imports its modules once.

    python starter.py ROOT

imports what run.py needs, without using JAX, and forks a process for each line of its standard
input, a JSON object: `argv`, `log` (a file for its output) and `hook`, source that is executed
before run.py. The process can be killed like any other. Standard output has its process id, and its
exit status when it has ended: [pid, null], then [pid, status].
"""

import json
import os
import runpy
import signal
import sys
import threading

sys.path.insert(0, sys.argv[1])
os.chdir(sys.argv[1])
os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=0"  # so that run.py doesn't start itself again
from absl import app  # noqa: E402, F401
from ml_collections import config_flags  # noqa: E402, F401

from ergl_jax.training import train  # noqa: E402, F401


def answer(*words):
    os.write(1, (json.dumps(words) + "\n").encode())


def become(argv, log, hook):
    """The forked process: never returns."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["run.py", *argv]
    exec(hook, {})
    runpy.run_path("run.py", run_name="__main__")


def wait(pid):
    _, status = os.waitpid(pid, 0)
    answer(pid, os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            become(**order)
        answer(pid, None)
        threading.Thread(target=wait, args=(pid,)).start()
