"""Whether this process's matrix products are such that a row rounds the same in any place of a block.

Intel's library rounds by how memory is aligned unless it is told not to, and it can be told only before its first
product. :mod:`coreason_enclave` does so on import; somebody who computed before that has to say it in the environment.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from coreason_enclave.errors import UnsafeTrainingError

__all__ = ["describe", "require_strict"]

_STRICT = 1 << 16
_COMPATIBLE = 3
_ANY_BRANCH = -1


@cache
def _mode() -> int | None:
    """The mode of conditional numerical reproducibility in force; None where Torch is built without the library."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return int(library.mkl_serv_cbwr_get(_ANY_BRANCH))
    except (OSError, AttributeError):
        return None


def require_strict() -> None:
    """Refuse to train where products depend on how memory is aligned.

    Raises:
        UnsafeTrainingError: the library is there, and computed before it was told to be strict.
    """
    torch.ones(2, 2) @ torch.ones(2, 2)  # the mode is fixed by the first product
    mode = _mode()
    if mode is not None and mode != _COMPATIBLE and not mode & _STRICT:
        raise UnsafeTrainingError(
            "matrix products of this process round by the alignment of memory, so that one row could change another's "
            "gradient: set MKL_CBWR=AVX2,STRICT in the environment before Python starts, or import coreason_enclave "
            "before anything computes"
        )


def describe() -> str:
    """What products depend on, for a cache of what was measured."""
    return f"{_mode()}/{torch.get_num_threads()}/{torch.backends.cpu.get_cpu_capability()}"
