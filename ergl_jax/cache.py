"""Directories for what is kept between runs: compiled programs, fonts, copies from buckets."""

import hashlib
import os
import platform
import sys
import tempfile
from pathlib import Path

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
HOME = "XDG_CACHE_HOME"
CPU = Path("/proc/cpuinfo")


def directory() -> Path:
    """This user's cache directory, which may be deleted at any time.

    `ergl_jax` in $XDG_CACHE_HOME or ~/.cache. If that is not writable, a directory in the temporary
    one, with a note on stderr; XDG_CACHE_HOME is then set, so other libraries use it too. Raises
    OSError if none is writable.
    """
    try:
        home = Path(os.environ.get(HOME) or Path.home() / ".cache")
        return _writable(home / "ergl_jax")
    except (OSError, RuntimeError):  # RuntimeError: no home
        pass
    home = Path(tempfile.gettempdir()) / f"ergl_jax-{getattr(os, 'getuid', int)()}"
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        if home.is_symlink() or hasattr(os, "getuid") and home.stat().st_uid != os.getuid():
            raise PermissionError(home)
        path = _writable(home / "ergl_jax")
    except OSError:  # another user's
        home = Path(tempfile.mkdtemp(prefix="ergl_jax-"))
        path = _writable(home / "ergl_jax")
    os.environ[HOME] = str(home)
    print(
        f"note: no writable cache directory: caching in {home}; set {HOME} to change this",
        file=sys.stderr,
        flush=True,
    )
    return path


def _writable(path: Path) -> Path:
    # Its programs are executed: nobody else may write there.
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass
    return path


def use_caches() -> Path | None:
    """Makes JAX keep compiled programs in the cache directory; returns where, or None.

    It is `xla/<type of processor>` in `directory`. One per type, since JAX's key of a program does
    not contain the processor, and a home directory may be shared by several. Does nothing to JAX if
    it has a directory already, by JAX_COMPILATION_CACHE_DIR or its configuration.

    Call it before importing Matplotlib, which warns if the home directory is read-only.
    """
    import jax  # not above: slow

    try:
        if not os.access(os.path.expanduser("~"), os.W_OK):
            os.environ.setdefault("MPLCONFIGDIR", str(directory() / "matplotlib"))
        if VARIABLE in os.environ or jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
            return None
        path = directory() / "xla" / _processor()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return path


def _processor() -> str:
    """A hash of the processor's model and features, as far as the system shows them."""
    kind = [platform.machine(), platform.processor()]
    try:
        lines = CPU.read_text(encoding="utf-8").splitlines()
        kind += sorted({line for line in lines if line.startswith(("model name", "flags", "Feat"))})
    except OSError:
        pass
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:16]
