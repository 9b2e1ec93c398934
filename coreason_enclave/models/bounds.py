"""Bounds on what a coordinator may send as a base model: checked before anything is reserved, without any row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.models.registry import build, load_weights
from coreason_enclave.wire.updates import Arrays

__all__ = ["require_bounded_logits", "require_bounded_weights"]


def require_bounded_weights(arrays: Arrays, largest: float) -> None:
    """Refuse weights that are not finite, or whose absolute value exceeds ``largest``.

    Raises:
        JobRejected: by ``non_finite`` or ``policy``; the message names the tensor.
    """
    for name, array in sorted(arrays.items()):
        if not np.isfinite(array).all():
            raise JobRejected(f"the base model's {name} is not finite", reason=Reason.NON_FINITE)
        if array.size and float(np.abs(array).max()) > largest:
            raise JobRejected(f"site policy: max_base_weight is {largest:g}, the base model's {name} has more")


def require_bounded_logits(
    name: str, args: Mapping[str, int], arrays: Arrays, rows: npt.NDArray[np.float32], largest: float
) -> None:
    """Refuse a model whose outputs exceed ``largest`` in absolute value on synthetic ``rows``.

    Raises:
        JobRejected: by ``policy``, or ``non_finite`` where an output is not.
    """
    model = build(name, args)
    load_weights(model.module, arrays)
    with torch.inference_mode():
        outputs = model.module.eval()(torch.from_numpy(rows))
    if not bool(torch.isfinite(outputs).all()):
        raise JobRejected("the base model's outputs overflow on rows that are declared", reason=Reason.NON_FINITE)
    found = float(outputs.abs().max())
    if found > largest:
        raise JobRejected(f"site policy: max_logit is {largest:g}, the base model has outputs of {found:g}")
