"""Bounds on a coordinator's base model, checked before any reservation and without any row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.models.registry import build, load_weights
from coreason_enclave.wire import Arrays


def require_bounded_weights(arrays: Arrays, largest: float) -> None:
    """Raise unless all weights are finite, with absolute values of at most ``largest``.

    Raises:
        JobRejected: reason ``non_finite`` or ``policy``; the message names the tensor.
    """
    for name, array in sorted(arrays.items()):
        if not np.isfinite(array).all():
            raise JobRejected(f"the base model's {name} is not finite", reason=Reason.NON_FINITE)
        if array.size and float(np.abs(array).max()) > largest:
            raise JobRejected(f"site policy: max_base_weight is {largest:g}, but the base model's {name} exceeds it")


def require_bounded_logits(
    name: str, args: Mapping[str, int], arrays: Arrays, rows: npt.NDArray[np.float32], largest: float
) -> None:
    """Raise unless all outputs of the model on synthetic ``rows`` stay within ``largest`` in absolute value.

    Raises:
        JobRejected: reason ``policy``, or ``non_finite`` for a non-finite output.
    """
    model = build(name, args)
    load_weights(model.module, arrays)
    with torch.inference_mode():
        outputs = model.module.eval()(torch.from_numpy(rows))
    if not bool(torch.isfinite(outputs).all()):
        raise JobRejected("the base model's outputs overflow on rows within declared ranges", reason=Reason.NON_FINITE)
    largest_logit = float(outputs.abs().max())
    if largest_logit > largest:
        raise JobRejected(f"site policy: max_logit is {largest:g}, but base model outputs reach {largest_logit:g}")
