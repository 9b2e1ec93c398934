"""The agent at a data holder's site: it attests, validates, trains under differential privacy and sanitises.

Importing this package imports nothing heavy; each room imports what it needs (see ``docs/ARCHITECTURE.md``). It sets
``MKL_CBWR``, unless somebody has: Intel's mathematical library reads it once, before its first product, and without it
a row's gradient would round by where in memory the row lies (see :mod:`coreason_enclave.privacy.kernel`).
"""

import os

os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")

__version__ = "0.1.0"
__all__ = ["__version__"]
