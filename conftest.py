"""Before anything numerical is imported, one thread for it.

Tests fork children that train, and a child in which a pool of its parent's threads is missing would wait for them for
ever. The Makefile says the same; a plain ``python -m pytest`` has to work too.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")  # read once, before the first product of whichever test comes first
