"""A directory for JAX's compiled programs, so that later starts don't compile them again."""

import hashlib
import os
import platform
import tempfile
from pathlib import Path

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
CPU = Path("/proc/cpuinfo")


def use_compilation_cache() -> Path | None:
    """Makes JAX keep compiled programs in the user's cache directory; returns it, or None.

    It is `ergl_jax/xla/<type of processor>` in $XDG_CACHE_HOME or ~/.cache, and may be deleted at
    any time. One per type, since JAX's key of a program does not contain the processor, and a home
    directory may be shared by several. Does nothing if JAX has a directory already, by
    JAX_COMPILATION_CACHE_DIR or its configuration, or if the directory can't be written to.
    """
    import jax  # not above: slow

    if VARIABLE in os.environ or jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return None
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        directory = home / "ergl_jax" / "xla" / _processor()
        # Its programs are executed: nobody else may write there.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except (OSError, RuntimeError):  # RuntimeError: no home
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return directory


def _processor() -> str:
    """A hash of the processor's model and features, as far as the system shows them."""
    kind = [platform.machine(), platform.processor()]
    try:
        lines = CPU.read_text(encoding="utf-8").splitlines()
        kind += sorted({line for line in lines if line.startswith(("model name", "flags", "Feat"))})
    except OSError:
        pass
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:16]
