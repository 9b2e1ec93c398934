"""The agent at a data holder's site: attests, validates, trains under differential privacy, and sanitises.

Importing this package imports no heavy library; each room imports its own needs (see ``docs/ARCHITECTURE.md``).

The package sets ``MKL_CBWR`` unless the environment already does. Intel's mathematical library reads the variable once,
before its first product. Without it, a row's gradient would round differently depending on the row's place in memory
(see :mod:`coreason_enclave.privacy.kernel`).
"""

import os

os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")

__version__ = "0.1.0"
__all__ = ["__version__"]
