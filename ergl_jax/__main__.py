"""`python -m ergl_jax` is `ergl`."""

import sys

from ergl_jax.cli import main

sys.exit(main())
