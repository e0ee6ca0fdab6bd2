"""Huge pages and devices, in programs of their own."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ergl_jax import cpu
from ergl_jax.cpu import VALUE, VARIABLE

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import os, sys
print("start", os.getpid())
sys.stdout.flush()
from ergl_jax.cpu import use_huge_pages
use_huge_pages()
block = bytearray(b"x" * (64 << 20))
pages = [line.split()[1] for line in open("/proc/self/smaps_rollup") if "AnonHuge" in line]
print("end", os.environ.get("GLIBC_TUNABLES"), int(pages[0]) >> 10, *sys.argv[1:])
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="of Linux")


RESTARTED = """
import os, sys
print(os.environ.get("GLIBC_TUNABLES"), file=sys.stderr)
from ergl_jax.cpu import use_huge_pages
use_huge_pages()
print("ran", os.environ.get("GLIBC_TUNABLES"))
"""
CORES = """
import os, sys
from ergl_jax import cpu
os.sched_getaffinity, cpu.CGROUP = lambda pid: set(range(12)), cpu.Path("/none")
made = [cpu.use_cores(int(batch)) for batch in sys.argv[1:]]
import jax
print(*made, jax.device_count(), cpu.use_cores(64))
"""
CONVOLUTIONS = """
import os, sys
from ergl_jax import cpu
os.sched_getaffinity, cpu.CGROUP = lambda pid: set(range(int(sys.argv[1]))), cpu.Path("/none")
cpu.use_cores(8)
import jax
print(jax.device_count(), os.environ.get("XLA_FLAGS"))
"""
GRADIENT = """
import os
from ergl_jax import cpu
cpu.use_barriers()
import jax, jax.numpy as jnp, numpy as np
from ergl_jax.kernels.convolution import convolve

x, kernel, scale = (
    jax.random.normal(jax.random.key(i), shape)
    for i, shape in enumerate([(4, 9, 8, 3), (3, 3, 3, 5), (3,)])
)
loss = lambda kernel, scale: (convolve(jax.nn.relu(x * scale), kernel) ** 2).sum()
compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(kernel, scale).compile()
direction = jnp.ones_like(kernel) / kernel.size
with jax.enable_x64(True):
    step = 1e-4 * np.float64(direction)
    plain = lambda k: (jax.lax.conv_general_dilated(
        np.maximum(np.float64(x) * np.float64(scale), 0), k, (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC")) ** 2).sum()
    slope = (plain(kernel + step) - plain(kernel - step)) / 2e-4
found = (compiled(kernel, scale)[0] * direction).sum()
print("opt-barrier" in compiled.as_text(), abs(found / slope - 1) < 1e-5)
"""
OTHER = "--xla_cpu_prefer_vector_width=256"
OURS = {VARIABLE, "JAX_NUM_CPU_DEVICES", "XLA_FLAGS"}


def environment_without_ours():
    return {name: value for name, value in os.environ.items() if name not in OURS}


def run(tmp_path, *arguments, program=PROGRAM, **environment):
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    rest = environment_without_ours()
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", *arguments],
        env=rest | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split(maxsplit=1) for line in done.stdout.splitlines()]


@linux
def test_the_program_starts_once_more_as_it_was_called(tmp_path):
    first, second, end = run(tmp_path, "--two words", "ä")
    assert first == second  # the same process
    tunables, mebibytes, arguments = end[1].split(maxsplit=2)
    assert (tunables, arguments) == (VALUE, "--two words ä")
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if setting.exists() and "[never]" not in setting.read_text(encoding="ascii"):
        assert int(mebibytes) >= 60


@linux
def test_a_value_that_is_set_stays(tmp_path):
    value = "glibc.malloc.hugetlb=0"
    (_, end) = run(tmp_path, **{VARIABLE: value})
    assert end[1].startswith(value)


@linux
def test_devices_share_the_batch_among_the_cores(tmp_path):
    """On twelve cores: 8 at most, whole shares, four clips or more in each; then it is too late."""
    ((made, last),) = run(tmp_path, "64", "48", "21", "12", "7", "0", "20", program=CORES)
    assert (made, last) == ("8", "8 3 3 1 1 5 5 1")


@linux
@pytest.mark.parametrize(
    "setting",
    [{"JAX_NUM_CPU_DEVICES": "3"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}],
)
def test_a_number_of_devices_that_is_set_stays(tmp_path, setting):
    ((made, last),) = run(tmp_path, "64", program=CORES, **setting)
    assert (made, last) == ("1", "3 1")


@linux
@pytest.mark.skipif(not version("jaxlib").startswith(cpu.JAXLIBS), reason="not tried with it")
@pytest.mark.parametrize(
    ("cores", "flags", "expected"),
    [
        ("1", "", cpu.YNNPACK),
        ("1", OTHER, f"{OTHER} {cpu.YNNPACK}"),
        ("1", "--xla_cpu_experimental_ynn_fusion_type=reduce", None),
        ("2", OTHER, None),
    ],
)
def test_one_device_computes_convolutions_on_all_cores(tmp_path, cores, flags, expected):
    """By a flag that this XLA must know: to another it aborts. None: what was there stays."""
    ((count, found),) = run(tmp_path, cores, program=CONVOLUTIONS, XLA_FLAGS=flags)
    assert (count, found) == (cores, expected or flags)


def test_chosen_passes_stay_alone(monkeypatch):
    """XLA aborts where passes are both chosen and disabled."""
    chosen = "--xla_enable_hlo_passes_only=dce"
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", chosen)
    cpu.use_barriers()
    assert os.environ["XLA_FLAGS"] == chosen


@linux
@pytest.mark.skipif(not version("jaxlib").startswith(cpu.JAXLIBS), reason="not tried with it")
def test_a_file_of_flags_stays_alone(tmp_path):
    """XLA reads what doesn't begin with a dash as a file's name."""
    file = tmp_path / "flags"
    file.write_text(OTHER, encoding="utf-8")
    ((count, found),) = run(tmp_path, "1", program=CONVOLUTIONS, XLA_FLAGS=str(file))
    assert (count, found) == ("1", str(file))
    ((stay, right),) = run(tmp_path, program=GRADIENT, JAX_PLATFORMS="cpu", XLA_FLAGS=str(file))
    assert (stay, right) == ("False", "True")


@pytest.mark.parametrize("use", [cpu.use_threaded_convolutions, cpu.use_barriers])
def test_a_jaxlib_that_was_not_tried_gets_no_flag(use, monkeypatch):
    monkeypatch.setattr(cpu.importlib.metadata, "version", lambda name: "0.100.1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    use()
    assert os.environ["XLA_FLAGS"] == ""


@pytest.mark.skipif(not version("jaxlib").startswith(cpu.JAXLIBS), reason="not tried with it")
@pytest.mark.parametrize("flags", ["", cpu.YNNPACK, "--xla_disable_hlo_passes=none"])
def test_barriers_stay_and_change_no_gradient(tmp_path, flags):
    """By a name that this XLA must know: another would disable nothing."""
    kept = "hlo_passes" not in flags
    ((stay, right),) = run(tmp_path, program=GRADIENT, JAX_PLATFORMS="cpu", XLA_FLAGS=flags)
    assert (stay, right) == (str(kept), "True")


@pytest.mark.skipif(not version("jaxlib").startswith(cpu.JAXLIBS), reason="not tried with it")
@pytest.mark.parametrize(
    ("package", "plugins", "platforms", "used"),
    [
        (None, [], "", True),
        (object(), [], "", False),
        (None, ["cuda"], "", False),
        (object(), ["cuda"], "cpu", True),
    ],
)
def test_barriers_are_for_a_cpu_alone(package, plugins, platforms, used, monkeypatch):
    """Where another backend may be used, no pass of its compiler is disabled."""
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(cpu.importlib.util, "find_spec", lambda name: package)
    monkeypatch.setattr(cpu.importlib.metadata, "entry_points", lambda group: plugins)
    cpu.use_barriers()
    assert os.environ["XLA_FLAGS"] == (cpu.BARRIERS if used else "")


@linux
@pytest.mark.parametrize(
    ("how", "again"),
    [
        (["-u", "FILE", "x"], True),
        (["-X", "utf8", "FILE"], True),
        (["-c", RESTARTED, "x"], False),
        (["-"], False),
        (["-m", "program"], False),
    ],
)
def test_only_a_file_is_started_again(tmp_path, how, again):
    """What came by standard input would be lost, and a debugger started anew."""
    file = tmp_path / "program.py"
    file.write_text(RESTARTED, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *(str(file) if word == "FILE" else word for word in how)],
        env=environment_without_ours() | {"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        input=RESTARTED,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"ran {VALUE if again else None}\n"
    assert done.stderr.splitlines() == (["None", VALUE] if again else ["None"])


@linux
@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 12), ("250000 100000", 2), ("50000 100000", 1), (None, 12)]
)
def test_a_containers_quota_counts(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(cpu, "CGROUP", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    if quota:
        cpu.CGROUP.write_text(quota, encoding="ascii")
    assert cpu._cores() == cores
