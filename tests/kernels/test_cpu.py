"""Huge pages, devices and XLA flags, in programs of their own."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from programs import ROOT, python

from ergl_jax.kernels import cpu
from ergl_jax.kernels.cpu import VALUE, VARIABLE

linux = pytest.mark.skipif(sys.platform != "linux", reason="for Linux")
with_known_jaxlib = pytest.mark.skipif(
    not version("jaxlib").startswith(cpu.JAXLIBS), reason="the flags are not tested with it"
)
RESTARTED = """
import os, sys
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), file=sys.stderr)
from ergl_jax.kernels.cpu import use_huge_pages
use_huge_pages()
block = bytearray(b"x" * (64 << 20))
pages = [line.split()[1] for line in open("/proc/self/smaps_rollup") if "AnonHuge" in line]
print(os.environ.get("GLIBC_TUNABLES"), int(pages[0]) >> 10, *sys.argv[1:])
"""
CORES = """
import os, sys
from ergl_jax.kernels import cpu
os.sched_getaffinity, cpu.CGROUP = lambda pid: set(range(12)), cpu.Path("/none")
made = [cpu.use_cores(int(batch)) for batch in sys.argv[1:]]
import jax
print(*made, jax.device_count(), cpu.use_cores(64))
"""
CONVOLUTIONS = """
import os, sys
from ergl_jax.kernels import cpu
os.sched_getaffinity, cpu.CGROUP = lambda pid: {0}, cpu.Path("/none")
cpu.use_cores(8)
import jax
print(jax.device_count(), os.environ.get("XLA_FLAGS"))
"""
GRADIENT = """
import os
from ergl_jax.kernels import cpu
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


def start(tmp_path, program, command=("FILE",), **environment):
    """Runs a program with none of our variables set, but those given."""
    file = tmp_path / "program.py"
    file.write_text(program, encoding="utf-8")
    return python(
        *(file if word == "FILE" else word for word in command),
        without={VARIABLE, "JAX_NUM_CPU_DEVICES", "XLA_FLAGS"},
        check=True,
        input=program,
        **{"PYTHONPATH": f"{ROOT}:{tmp_path}"} | environment,
    )


@linux
def test_the_program_restarts_as_it_was_called(tmp_path):
    done = start(tmp_path, RESTARTED, ("-u", "-X", "utf8", "FILE", "--two words", "ä"))
    first, second = (line.split() for line in done.stderr.splitlines())
    assert first[0] == second[0] and (first[1], second[1]) == ("None", VALUE)  # the same process
    tunables, mebibytes, arguments = done.stdout.strip().split(maxsplit=2)
    assert (tunables, arguments) == (VALUE, "--two words ä")
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if setting.exists() and "[never]" not in setting.read_text(encoding="ascii"):
        assert int(mebibytes) >= 60


@linux
@pytest.mark.parametrize(
    ("command", "environment"),
    [
        (["-c", RESTARTED, "x"], {}),
        (["-"], {}),
        (["-m", "program"], {}),
        (["FILE"], {VARIABLE: "glibc.malloc.hugetlb=0"}),
    ],
)
def test_other_programs_do_not_restart(tmp_path, command, environment):
    """Standard input would be lost, a debugger would start again, and a set value stays."""
    done = start(tmp_path, RESTARTED, command, **environment)
    assert done.stdout.split()[0] == environment.get(VARIABLE, "None")
    assert len(done.stderr.splitlines()) == 1


@linux
@pytest.mark.parametrize(
    ("environment", "batches", "expected"),
    [
        # On twelve cores: at most 8, equal shares of four clips or more; then it is too late
        ({}, "64 48 21 12 7 0 20", "8 8 3 3 1 1 5 5 1"),
        ({"JAX_NUM_CPU_DEVICES": "3"}, "64", "1 3 1"),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, "64", "1 3 1"),
    ],
)
def test_devices_share_the_batch(tmp_path, environment, batches, expected):
    done = start(tmp_path, CORES, ("FILE", *batches.split()), **environment)
    assert done.stdout.strip() == expected


@linux
def test_the_quota_of_a_container(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "CGROUP", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)))
    assert cpu._cores() == 12
    for quota, cores in (("max 100000", 12), ("250000 100000", 2), ("50000 100000", 1)):
        cpu.CGROUP.write_text(quota, encoding="ascii")
        assert cpu._cores() == cores


@linux
@with_known_jaxlib
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (OTHER, f"{OTHER} {cpu.YNNPACK}"),
        ("--xla_cpu_experimental_ynn_fusion_type=reduce", None),
        ("FILE", None),
    ],
)
def test_a_single_device_gets_the_flag_of_convolutions(tmp_path, flags, expected):
    """XLA must know it: it aborts on others. It reads what doesn't begin with a dash as a file."""
    if flags == "FILE":
        flags = str(tmp_path / "flags")
        Path(flags).write_text(OTHER, encoding="utf-8")
    done = start(tmp_path, CONVOLUTIONS, XLA_FLAGS=flags)
    assert done.stdout.strip() == f"1 {expected or flags}"


@with_known_jaxlib
@pytest.mark.parametrize("flags", ["", "--xla_disable_hlo_passes=none"])
def test_barriers_are_kept_and_change_no_gradient(tmp_path, flags):
    """The name of the pass must be right: another would disable nothing."""
    done = start(tmp_path, GRADIENT, JAX_PLATFORMS="cpu", XLA_FLAGS=flags)
    assert done.stdout.split() == [str(not flags), "True"]


@with_known_jaxlib
@pytest.mark.parametrize(
    ("package", "plugins", "platforms", "flags", "expected"),
    [
        (None, [], "", "", cpu.BARRIERS),
        (object(), [], "", "", ""),
        (None, ["cuda"], "", "", ""),
        (object(), ["cuda"], "cpu", "", cpu.BARRIERS),
        # XLA aborts if passes are both chosen and disabled
        (None, [], "cpu", "--xla_enable_hlo_passes_only=dce", "--xla_enable_hlo_passes_only=dce"),
    ],
)
def test_barriers_are_for_cpu_only(package, plugins, platforms, flags, expected, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(cpu.importlib.util, "find_spec", lambda name: package)
    monkeypatch.setattr(cpu.importlib.metadata, "entry_points", lambda group: plugins)
    cpu.use_barriers()
    assert os.environ["XLA_FLAGS"] == expected


@pytest.mark.parametrize("use", [cpu.use_threaded_convolutions, cpu.use_barriers])
def test_an_untested_jaxlib_gets_no_flag(use, monkeypatch):
    monkeypatch.setattr(cpu.importlib.metadata, "version", lambda name: "0.100.1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    use()
    assert os.environ["XLA_FLAGS"] == ""
