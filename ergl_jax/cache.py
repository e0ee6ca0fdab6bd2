"""Where a program keeps what it compiled, so that its next start needn't compile it again."""

import hashlib
import os
import platform
import tempfile
from pathlib import Path

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
CPU = Path("/proc/cpuinfo")


def use_compilation_cache() -> Path | None:
    """Has JAX keep compiled programs in the user's cache directory; returns where, or None.

    That is `ergl_jax/xla/<kind of machine>` under $XDG_CACHE_HOME or ~/.cache, which may be deleted
    at any time. JAX's key of a program doesn't say for which processor it was compiled, and a home
    directory may be shared by several, so each kind has a directory of its own. Does nothing where
    JAX was told a directory, by JAX_COMPILATION_CACHE_DIR or otherwise, or where none can be
    written to.
    """
    import jax  # not above: nothing slow comes before `cpu.use_huge_pages`

    if VARIABLE in os.environ or jax.config.jax_compilation_cache_dir:
        return None
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        directory = home / "ergl_jax" / "xla" / _machine()
        # Programs in it are run: nobody else may write there.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except (OSError, RuntimeError):  # RuntimeError: no home
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return directory


def _machine() -> str:
    """A name for this kind of processor: by its model and what it can do, where Linux tells."""
    kind = [platform.machine(), platform.processor()]
    try:
        lines = CPU.read_text(encoding="utf-8").splitlines()
        kind += sorted({line for line in lines if line.startswith(("model name", "flags", "Feat"))})
    except OSError:
        pass
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:16]
