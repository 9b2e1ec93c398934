"""The airlock: a site's output filter as pure functions. Arrays in; a releasable update or a typed refusal out.

An update leaves only if the following rules hold:

- The arrays have exactly the names, shapes and type of the base model.
- All values are finite, and the L2 norm lies within the agreed bound.
- The size stays within the cap.
- The update carries its privacy event.
- All scalars come from a closed list of names, none of them computed from rows.

The airlock copies the arrays first and checks the copies. The released bytes are therefore the checked bytes, and no
part of a larger buffer behind a view travels along.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import MappingProxyType

import numpy as np

from coreason_enclave.accounting import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.crypto import sha256_hex
from coreason_enclave.errors import DataLeakageError, Reason
from coreason_enclave.wire import Array, Arrays, Layout, ReleasableUpdate, TrainedUpdate, encode_arrays

MAX_UPDATE_BYTES = 1 << 31
"""The largest update that leaves, in bytes of float32."""

WRAPPERS = ("_module.", "module.")
"""Prefixes that Opacus and torch.nn.parallel put before the names of a wrapped model."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,255}")
_COUNT_LIMIT = 1 << 53


def _count(least: int) -> Callable[[float], bool]:
    return lambda value: value.is_integer() and least <= value <= _COUNT_LIMIT


METRICS: Mapping[str, tuple[Callable[[float], bool], str]] = MappingProxyType(
    {
        "epsilon": (lambda value: 0 <= value <= 1e6, "from 0 to 1e6"),
        "delta": (lambda value: 0 <= value < 1, "from 0 to below 1"),
        "steps": (_count(0), "a whole number of at least 0"),
        "sample_rate": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "noise_multiplier": (lambda value: 0 < value <= 1e6, "above 0 and at most 1e6"),
        "nominal_units": (_count(1), "a whole number of at least 1"),
    }
)
"""The scalars that may leave, each with its rule. All of them are known before any row is read."""

_RESTATED = ("steps", "sample_rate", "noise_multiplier")


def pass_through(
    trained: TrainedUpdate,
    *,
    layout: Layout,
    max_norm: float,
    max_bytes: int = MAX_UPDATE_BYTES,
    allow_non_private: bool = False,
) -> ReleasableUpdate:
    """Return ``trained`` as a releasable update if every rule holds.

    Args:
        trained: the update (new weights minus base weights) and the privacy event of its training.
        layout: names and shapes of the base model.
        max_norm: the largest L2 norm over all arrays together, as agreed in the job.
        max_bytes: the largest size of the arrays.
        allow_non_private: True only for a data lineage registered as public.

    Raises:
        DataLeakageError: a rule does not hold; the error's reason names the kind of rule.
    """
    check_event(trained.event, allow_non_private=allow_non_private)
    metrics = check_metrics(trained.metrics, trained.event)
    arrays = {name: _strict_copy(name, array) for name, array in trained.arrays.items()}
    check_layout(arrays, layout)
    check_bytes(arrays, max_bytes)
    check_finite(arrays)
    check_norm(arrays, max_norm)
    payload = encode_arrays(arrays)
    return ReleasableUpdate(payload, sha256_hex(payload), trained.event, MappingProxyType(metrics))


def check_event(event: Event | None, *, allow_non_private: bool) -> None:
    """Raise unless the update carries its privacy event, regardless of the training loop's author."""
    if isinstance(event, PoissonSampledGaussian) and event.steps > 0:
        return
    if isinstance(event, NonPrivate):
        if allow_non_private is True:
            return
        raise DataLeakageError(
            "this update was trained without privacy: only a lineage registered as public may release one",
            reason=Reason.NO_PRIVACY_EVENT,
        )
    raise DataLeakageError(
        f"this update has no privacy event (got {event!r:.60}): train through the privacy guard",
        reason=Reason.NO_PRIVACY_EVENT,
    )


def check_layout(arrays: Arrays, layout: Layout) -> None:
    """Raise unless the arrays have exactly the base model's names and shapes."""
    if not layout:
        raise DataLeakageError("the layout is empty: pass the layout of the base model")
    if arrays.keys() != layout.keys():
        extra, absent = sorted(arrays.keys() - layout.keys()), sorted(layout.keys() - arrays.keys())
        raise DataLeakageError(
            f"the tensors are not the model's: surplus {_list(extra)}, missing {_list(absent)}",
            reason=Reason.WRONG_SHAPES,
        )
    for name, array in arrays.items():
        if array.shape != tuple(layout[name]):
            raise DataLeakageError(
                f"{name!r} has shape {array.shape}, the model's is {tuple(layout[name])}", reason=Reason.WRONG_SHAPES
            )


def check_bytes(arrays: Arrays, limit: int) -> None:
    """Raise if all arrays together exceed ``limit`` bytes."""
    size = sum(array.nbytes for array in arrays.values())
    if size > limit:
        raise DataLeakageError(f"the update has {size} bytes, but the limit is {limit}", reason=Reason.OVERSIZED)


def check_finite(arrays: Arrays) -> None:
    """Raise on NaN or infinity."""
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DataLeakageError(f"{name!r} holds non-finite values: lower learning_rate", reason=Reason.NON_FINITE)


def check_norm(arrays: Arrays, max_norm: float) -> None:
    """Raise if the L2 norm over all arrays together exceeds ``max_norm``."""
    if not (math.isfinite(max_norm) and max_norm > 0):
        raise DataLeakageError(f"max_norm must be positive and finite, got {max_norm}: a released update needs a bound")
    norm = l2_norm(arrays)
    if not norm <= max_norm:
        raise DataLeakageError(
            f"L2 norm {norm:.6g} exceeds max_update_norm {max_norm:g}: lower learning_rate", reason=Reason.NORM_EXCEEDED
        )


def l2_norm(arrays: Arrays) -> float:
    """Return the L2 norm over all arrays together, in float64, where squares of float32 cannot overflow."""
    flat = (array.astype(np.float64).ravel() for array in arrays.values())
    return math.sqrt(math.fsum(float(values @ values) for values in flat))


def check_metrics(metrics: Mapping[str, object], event: Event | None = None) -> dict[str, float]:
    """Return the metrics as floats if all are on the closed list; metrics that restate ``event`` must agree with it."""
    checked = {_known_metric(name): _scalar(name, value) for name, value in metrics.items()}
    for name, value in checked.items():
        rule, words = METRICS[name]
        if not rule(value):
            raise DataLeakageError(f"metric {name} must be {words}, got {value!r}")
    if isinstance(event, PoissonSampledGaussian):
        for name in checked.keys() & set(_RESTATED):
            if checked[name] != float(getattr(event, name)):
                raise DataLeakageError(f"metric {name} is {checked[name]!r}, not the event's {getattr(event, name)!r}")
    return checked


def strip_wrappers(name: object) -> str:
    """Return the clean ``state_dict`` name behind wrapper prefixes.

    >>> strip_wrappers("_module.module.linear.weight")
    'linear.weight'
    """
    clean = str(name) if isinstance(name, str) else ""
    while wrapper := next((prefix for prefix in WRAPPERS if clean.startswith(prefix)), ""):
        clean = clean.removeprefix(wrapper)
    if not _NAME.fullmatch(clean):
        raise DataLeakageError(f"a parameter name needs 1 to 256 characters from A-Z a-z 0-9 _ . -, got {name!r:.80}")
    return clean


def _known_metric(name: object) -> str:
    if isinstance(name, str) and name in METRICS:
        return str(name)
    raise DataLeakageError(
        f"metric {name!r:.80} may not leave the site; permitted metrics are {', '.join(sorted(METRICS))}. Loss, "
        "accuracy and exact counts are computed from private rows: measure utility on the public evaluation set, or "
        "only for the site itself, or release the metric through a charged mechanism"
    )


def _scalar(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise DataLeakageError(f"metric {name} must be a plain number, got {type(value).__name__}")
    try:
        number = float(int(value)) if isinstance(value, Integral) else float(value)
    except (OverflowError, ValueError) as error:
        raise DataLeakageError(f"metric {name} is out of range") from error
    if not math.isfinite(number):
        raise DataLeakageError(f"metric {name} must be finite, got {number}: leave the metric out instead")
    return number


def _strict_copy(name: object, array: object) -> Array:
    # A subclass may carry more than its values (as a masked array does); a foreign byte order changes the bytes.
    if type(array) is not np.ndarray:
        raise DataLeakageError(f"{name!r:.80} must be a numpy array, got {type(array).__name__}")
    if array.dtype != np.float32:
        raise DataLeakageError(f"{name!r:.80} must be float32, got {array.dtype}: convert the array at its source")
    return np.array(array, dtype=np.float32, order="C", copy=True)


def _list(names: list[object] | list[str]) -> str:
    return ", ".join(repr(name)[:80] for name in names[:5]) + (" …" if len(names) > 5 else "") or "none"
