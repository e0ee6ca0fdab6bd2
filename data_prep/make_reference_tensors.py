"""Makes the PyTorch reference that tests/equivalence compares with where torch is not installed.

    python data_prep/make_reference_tensors.py

Needs torch and torchlibrosa: pip install ".[port]". Run it again when cases.py or reference.py in
tests/equivalence change; with torch installed, `pytest -k equivalence` says if that was forgotten.
"""

import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS.parent)]  # the cases, and configs/

from equivalence import stored  # noqa: E402

from ergl_jax.errors import InputError, Parser, command  # noqa: E402
from ergl_jax.files import atomic_write, user_path  # noqa: E402

LIMIT = 3_000_000  # bytes, in a repository


@command(resumes=False)
def main(argv: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=user_path, default=stored.PATH, help="the .npz to write")
    out = parser.parse_args(argv).out
    try:
        tensors = stored.make()
    except ModuleNotFoundError as error:
        raise InputError(f'{error.name} is missing: pip install ".[port]"') from error
    with atomic_write(out) as tmp:
        with open(tmp, "wb") as file:
            np.savez_compressed(file, **tensors)
        size = tmp.stat().st_size
        if size > LIMIT:
            raise InputError(f"{size} bytes are more than {LIMIT}: make cases smaller")
    print(f"{out}: {len(tensors)} tensors, {size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
