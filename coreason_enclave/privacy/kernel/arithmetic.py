"""Check for products in this process: a row must round the same in any place of a block.

Intel's library (MKL) rounds by memory alignment unless configured otherwise, and accepts the setting only before its
first product. :mod:`coreason_enclave` applies the setting on import. A process that computes earlier must set
``MKL_CBWR`` in the environment.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from coreason_enclave.errors import UnsafeTrainingError

_STRICT = 1 << 16
_COMPATIBLE = 3
_ANY_BRANCH = -1


@cache
def _mode() -> int | None:
    """Return the mode of conditional numerical reproducibility in force; None for a Torch build without the library."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return int(library.mkl_serv_cbwr_get(_ANY_BRANCH))
    except (OSError, AttributeError):
        return None


def require_strict() -> None:
    """Raise if products in this process depend on memory alignment.

    Raises:
        UnsafeTrainingError: the library computed a product before the strict setting.
    """
    torch.ones(2, 2) @ torch.ones(2, 2)  # the mode is fixed by the first product
    mode = _mode()
    if mode is not None and mode != _COMPATIBLE and not mode & _STRICT:
        raise UnsafeTrainingError(
            "the rounding of matrix products depends on memory alignment, so that one row could change another's "
            "gradient: set MKL_CBWR=AVX2,STRICT before Python starts, or import coreason_enclave first"
        )


def describe() -> str:
    """Return the settings that products depend on, as a cache key for measurements."""
    return f"{_mode()}/{torch.get_num_threads()}/{torch.backends.cpu.get_cpu_capability()}"
