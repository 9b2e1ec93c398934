from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from coreason_enclave.accounting.events import NonPrivate, PoissonSampledGaussian
from coreason_enclave.airlock import METRICS, check_metrics, l2_norm, pass_through, strip_wrappers
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.errors import DataLeakageError, Reason
from coreason_enclave.wire.updates import ReleasableUpdate, TrainedUpdate, decode_arrays

EVENT = PoissonSampledGaussian(noise_multiplier=1.0, sample_rate=0.1, steps=6)
LAYOUT = {"linear.weight": (1, 3), "linear.bias": (1,)}


def _arrays(**changes: Any) -> dict[str, Any]:
    arrays = {"linear.weight": np.array([[1, 2, 2]], np.float32), "linear.bias": np.array([4], np.float32)}
    return {**arrays, **{name.replace("__", "."): value for name, value in changes.items()}}


def _release(arrays: Any = None, *, event: Any = EVENT, metrics: Any = None, **options: Any) -> ReleasableUpdate:
    trained = TrainedUpdate(_arrays() if arrays is None else arrays, event, metrics or {})
    return pass_through(trained, **{"layout": LAYOUT, "max_norm": 10.0, **options})


def _refusal(*args: Any, **options: Any) -> DataLeakageError:
    with pytest.raises(DataLeakageError) as refused:
        _release(*args, **options)
    return refused.value


def test_a_correct_update_leaves_as_the_bytes_its_digest_names() -> None:
    update = _release(metrics={"epsilon": 1.5, "steps": 6})
    assert update.digest == sha256_hex(update.payload)
    arrays = decode_arrays(update.payload, limit=10_000)
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "linear.weight": [[1, 2, 2]],
        "linear.bias": [4],
    }
    assert (update.event, dict(update.metrics)) == (EVENT, {"epsilon": 1.5, "steps": 6.0})


WRONG_FORM: dict[str, tuple[dict[str, Any], Reason]] = {
    "an extra array": (_arrays(rows=np.zeros(3, np.float32)), Reason.WRONG_SHAPES),
    "a missing array": ({"linear.bias": np.zeros(1, np.float32)}, Reason.WRONG_SHAPES),
    "no arrays": ({}, Reason.WRONG_SHAPES),
    "a wrapped name": ({f"_module.{n}": a for n, a in _arrays().items()}, Reason.WRONG_SHAPES),
    "the same size in another shape": (_arrays(linear__weight=np.zeros((3, 1), np.float32)), Reason.WRONG_SHAPES),
    "one more dimension": (_arrays(linear__bias=np.zeros((1, 1), np.float32)), Reason.WRONG_SHAPES),
    "a longer array": (_arrays(linear__bias=np.zeros(2, np.float32)), Reason.WRONG_SHAPES),
    "an empty array": (_arrays(linear__bias=np.zeros(0, np.float32)), Reason.WRONG_SHAPES),
    "float64": (_arrays(linear__bias=np.zeros(1)), Reason.LEAKAGE),
    "float16": (_arrays(linear__bias=np.zeros(1, np.float16)), Reason.LEAKAGE),
    "integers": (_arrays(linear__bias=np.zeros(1, np.int32)), Reason.LEAKAGE),
    "complex": (_arrays(linear__bias=np.zeros(1, np.complex64)), Reason.LEAKAGE),
    "truth values": (_arrays(linear__bias=np.zeros(1, np.bool_)), Reason.LEAKAGE),
    "objects": (_arrays(linear__bias=np.array([{"row": 1}])), Reason.LEAKAGE),
    "text": (_arrays(linear__bias=np.array(["row"])), Reason.LEAKAGE),
    "a record type": (_arrays(linear__bias=np.zeros(1, [("a", np.float32)])), Reason.LEAKAGE),
    "the other byte order": (_arrays(linear__bias=np.zeros(1, np.dtype(np.float32).newbyteorder())), Reason.LEAKAGE),
    "a list": (_arrays(linear__bias=[0.0]), Reason.LEAKAGE),
    "a scalar": (_arrays(linear__bias=np.float32(0)), Reason.LEAKAGE),
    "a masked array with rows under its mask": (
        _arrays(linear__bias=np.ma.masked_array(np.array([7], np.float32), mask=[True])),
        Reason.LEAKAGE,
    ),
    "a NaN": (_arrays(linear__bias=np.array([np.nan], np.float32)), Reason.NON_FINITE),
    "an infinity": (_arrays(linear__bias=np.array([-np.inf], np.float32)), Reason.NON_FINITE),
}


@pytest.mark.parametrize(("arrays", "reason"), WRONG_FORM.values(), ids=WRONG_FORM.keys())
def test_an_update_of_another_form_is_refused(arrays: dict[str, Any], reason: Reason) -> None:
    assert _refusal(arrays).reason is reason


def test_an_empty_layout_lets_nothing_pass() -> None:
    assert _refusal({}, layout={}).reason is Reason.LEAKAGE


def test_the_norm_is_over_all_arrays_together_and_may_reach_its_bound() -> None:
    assert l2_norm(_arrays()) == 5.0  # sqrt(1 + 4 + 4 + 16)
    assert _release(max_norm=5.0)
    assert _refusal(max_norm=math.nextafter(5.0, 0)).reason is Reason.NORM_EXCEEDED


def test_a_norm_that_overflows_float32_is_still_seen() -> None:
    huge = _arrays(linear__bias=np.array([3e38], np.float32))
    assert _refusal(huge, max_norm=1e38).reason is Reason.NORM_EXCEEDED


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_without_a_usable_bound_nothing_is_released(bound: float) -> None:
    assert _refusal(max_norm=bound).reason is Reason.LEAKAGE


def test_the_size_cap_counts_every_byte() -> None:
    assert _release(max_bytes=16)
    assert _refusal(max_bytes=15).reason is Reason.OVERSIZED


EVENTS: dict[str, object] = {
    "no event": None,
    "an event that ran no step": EVENT.with_steps(0),
    "an event written as text": "poisson_sampled_gaussian",
    "an event written as a mapping": {"type": "poisson_sampled_gaussian"},
    "a class instead of an event": PoissonSampledGaussian,
    "non-private training": NonPrivate(),
}


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS.keys())
def test_an_update_without_a_privacy_event_is_unreleasable_whoever_made_it(event: object) -> None:
    assert _refusal(event=event).reason is Reason.NO_PRIVACY_EVENT


def test_non_private_training_leaves_only_where_the_lineage_is_public() -> None:
    assert _release(event=NonPrivate(), allow_non_private=True).event == NonPrivate()
    assert _refusal(event=NonPrivate(), allow_non_private="yes").reason is Reason.NO_PRIVACY_EVENT
    assert _refusal(event=None, allow_non_private=True).reason is Reason.NO_PRIVACY_EVENT


def test_nothing_of_the_buffer_behind_a_view_leaves() -> None:
    secret = np.frombuffer(b"SECRETROW!!!" * 8, np.float32).copy()
    rows = np.concatenate([np.zeros(1, np.float32), secret])
    update = _release(_arrays(linear__bias=rows[:1], linear__weight=rows.reshape(1, -1)[:, :1].repeat(3, axis=1)))
    assert b"SECRETROW" not in update.payload


def test_a_strided_view_leaves_as_its_logical_values() -> None:
    backing = np.arange(6, dtype=np.float32).reshape(3, 2)
    update = _release(_arrays(linear__weight=backing.T[:1]))
    assert decode_arrays(update.payload, limit=1000)["linear.weight"].tolist() == [[0, 2, 4]]


def test_negative_zero_and_denormals_are_ordinary_values() -> None:
    tiny = np.float32(1e-45)
    update = _release(_arrays(linear__bias=np.array([-0.0], np.float32), linear__weight=np.full((1, 3), tiny)))
    arrays = decode_arrays(update.payload, limit=1000)
    assert np.signbit(arrays["linear.bias"][0])
    assert arrays["linear.weight"][0, 0] == tiny > 0


class _Shifty(Mapping[str, Any]):
    """Shows a good array when first asked and a bad one ever after."""

    def __init__(self) -> None:
        self._asked = False

    def __getitem__(self, name: str) -> Any:
        array = _arrays()[name] * (1000 if self._asked else 1)
        self._asked = self._asked or name == "linear.bias"
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(LAYOUT)

    def __len__(self) -> int:
        return len(LAYOUT)


def test_what_is_released_is_what_was_checked_even_if_the_source_changes() -> None:
    update = _release(_Shifty())
    assert l2_norm(decode_arrays(update.payload, limit=1000)) == 5.0


def test_later_changes_of_the_trained_arrays_do_not_reach_the_update() -> None:
    arrays = _arrays()
    update = _release(arrays)
    arrays["linear.bias"][:] = 77
    assert decode_arrays(update.payload, limit=1000)["linear.bias"].tolist() == [4]


VALUES = hnp.arrays(np.float32, 4, elements=st.floats(width=32))


@given(VALUES, st.floats(1e-3, 1e6))
def test_every_released_update_is_finite_within_the_norm_and_of_the_layout(values: Any, bound: float) -> None:
    arrays = {"linear.weight": values[:3].reshape(1, 3), "linear.bias": values[3:]}
    within = bool(np.isfinite(values).all()) and math.hypot(*map(float, values)) <= bound * (1 - 1e-12)
    try:
        update = _release(arrays, max_norm=bound)
    except DataLeakageError:
        assert not within
        return
    released = decode_arrays(update.payload, limit=1000)
    assert {name: array.shape for name, array in released.items()} == LAYOUT
    flat = np.concatenate([array.ravel() for array in released.values()]).astype(float)
    assert math.hypot(*flat) <= bound * (1 + 1e-12)


def test_the_closed_list_of_metrics_is_this_one() -> None:
    assert METRICS.keys() == {"epsilon", "delta", "steps", "sample_rate", "noise_multiplier", "nominal_units"}


FORBIDDEN = ["loss", "accuracy", "auc", "num_examples", "n", "rows", "Epsilon", "epsilon ", "", 7, None, ("epsilon",)]


@pytest.mark.parametrize("name", FORBIDDEN, ids=repr)
def test_a_metric_off_the_list_is_refused_with_the_alternatives(name: Any) -> None:
    with pytest.raises(DataLeakageError, match="public evaluation set"):
        check_metrics({name: 0.5})


BAD_VALUES: dict[str, tuple[str, object]] = {
    "truth": ("steps", True),
    "numpy truth": ("steps", np.bool_(True)),
    "text": ("epsilon", "1.0"),
    "None": ("epsilon", None),
    "a list": ("epsilon", [1.0]),
    "an array of one": ("epsilon", np.array([1.0])),
    "a zero-dimensional array": ("epsilon", np.array(1.0)),
    "a complex number": ("epsilon", 1j),
    "NaN": ("epsilon", math.nan),
    "an infinity": ("epsilon", math.inf),
    "a negative epsilon": ("epsilon", -1.0),
    "an integer beyond floats": ("epsilon", 10**400),
    "a delta of one": ("delta", 1.0),
    "half a step": ("steps", 1.5),
    "a step count wide enough to carry data": ("steps", 1 << 60),
    "a sample rate above one": ("sample_rate", 1.1),
    "no noise": ("noise_multiplier", 0.0),
    "no units": ("nominal_units", 0),
}


@pytest.mark.parametrize(("name", "value"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_a_metric_that_is_no_number_of_its_range_is_refused(name: str, value: object) -> None:
    with pytest.raises(DataLeakageError):
        check_metrics({name: value})


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), Fraction(2)], ids=repr)
def test_a_metric_leaves_as_a_plain_float(value: Any) -> None:
    checked = check_metrics({"epsilon": value})
    assert checked == {"epsilon": 2.0}
    assert type(checked["epsilon"]) is float


@pytest.mark.parametrize(("name", "value"), [("steps", 7), ("sample_rate", 0.2), ("noise_multiplier", 1.0000001)])
def test_a_metric_cannot_contradict_the_event_that_ran(name: str, value: float) -> None:
    assert "the event's" in str(_refusal(metrics={name: value}))


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("linear.weight", "linear.weight"),
        ("_module.linear.weight", "linear.weight"),
        ("module.linear.weight", "linear.weight"),
        ("module._module.module.linear.weight", "linear.weight"),
        ("submodule.weight", "submodule.weight"),
        ("linear.module.weight", "linear.module.weight"),
        ("module_.weight", "module_.weight"),
    ],
)
def test_only_leading_wrapper_prefixes_are_stripped(name: str, clean: str) -> None:
    assert strip_wrappers(name) == clean


@pytest.mark.parametrize("name", ["", "_module.", "module.module.", "a b", "a/b", "a\0", "é", "a" * 257, "..", 3, None])
def test_a_name_that_could_carry_data_is_refused(name: object) -> None:
    with pytest.raises(DataLeakageError):
        strip_wrappers(name)


def test_a_refusal_does_not_quote_values() -> None:
    refusals: list[Callable[[], DataLeakageError]] = [
        lambda: _refusal(_arrays(linear__bias=np.array([np.nan], np.float32))),
        lambda: _refusal(_arrays(linear__bias=np.array(["patient-zero"]))),
    ]
    assert not [refusal for refusal in refusals if "patient-zero" in str(refusal())]
