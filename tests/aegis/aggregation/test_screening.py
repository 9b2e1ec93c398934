from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.aggregation import Contribution, Quarantine, aggregate, screen
from aegis.errors import AggregationError, InvalidAggregation
from coreason_enclave.schemas import Aggregator

LAYOUT = {"weight": (2, 3), "bias": (3,), "scale": ()}
MAX_NORM = 10.0


def _fit(**changed: object) -> dict[str, Any]:
    arrays = {name: np.full(shape, 0.5, np.float32) for name, shape in LAYOUT.items()}
    return arrays | changed


def _with(value: object, position: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    weight = np.zeros((2, 3), np.float32)
    weight[position] = value
    return _fit(weight=weight)


class ExplosiveMapping(Mapping[str, Any]):
    def __getitem__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(LAYOUT)

    def __len__(self) -> int:
        return len(LAYOUT)


class LyingArray(np.ndarray):
    """An array that answers every question about itself in its own favour."""

    def __array_ufunc__(self, *args: object, **kwargs: object) -> Any:
        return np.float32(0)

    def reshape(self, *args: object, **kwargs: object) -> Any:
        raise RuntimeError("surprise")


HOSTILE: dict[str, tuple[object, Quarantine]] = {
    "NaN in the first place": (_with(math.nan), Quarantine.NON_FINITE),
    "NaN in the last place": (_with(math.nan, (1, 2)), Quarantine.NON_FINITE),
    "NaN in a tensor without dimensions": (_fit(scale=np.array(math.nan, np.float32)), Quarantine.NON_FINITE),
    "plus infinity": (_with(math.inf), Quarantine.NON_FINITE),
    "minus infinity": (_with(-math.inf), Quarantine.NON_FINITE),
    "the largest float32": (_with(np.finfo(np.float32).max), Quarantine.OUTSIZED),
    "a norm just above the bound": (_with(10.01), Quarantine.OUTSIZED),
    "no arrays at all": ({}, Quarantine.WRONG_NAMES),
    "None for arrays": (None, Quarantine.MALFORMED),
    "a list for arrays": ([1, 2, 3], Quarantine.MALFORMED),
    "a string for arrays": ("weight", Quarantine.MALFORMED),
    "a mapping that raises": (ExplosiveMapping(), Quarantine.MALFORMED),
    "names that are not strings": ({1: np.zeros(3, np.float32)}, Quarantine.MALFORMED),
    "a list for a tensor": (_fit(bias=[1.0, 2.0, 3.0]), Quarantine.MALFORMED),
    "None for a tensor": (_fit(bias=None), Quarantine.MALFORMED),
    "a float for the tensor without dimensions": (_fit(scale=0.5), Quarantine.MALFORMED),
    "a NumPy scalar": (_fit(scale=np.float32(0.5)), Quarantine.MALFORMED),
    "a masked array": (_fit(bias=np.ma.masked_array(np.ones(3, np.float32))), Quarantine.MALFORMED),
    "an array of a class of its own": (
        _fit(bias=np.full(3, np.nan, np.float32).view(LyingArray)),
        Quarantine.MALFORMED,
    ),
    "a matrix": (_fit(weight=np.ones((2, 3), np.float32).view(np.matrix)), Quarantine.MALFORMED),
    "a missing tensor": ({n: a for n, a in _fit().items() if n != "bias"}, Quarantine.WRONG_NAMES),
    "a tensor too many": (_fit(extra=np.zeros(1, np.float32)), Quarantine.WRONG_NAMES),
    "a wrapper's prefix on a name": ({f"_module.{n}": a for n, a in _fit().items()}, Quarantine.WRONG_NAMES),
    "float64": (_fit(bias=np.zeros(3)), Quarantine.WRONG_DTYPE),
    "float16": (_fit(bias=np.zeros(3, np.float16)), Quarantine.WRONG_DTYPE),
    "big-endian float32": (_fit(bias=np.zeros(3, ">f4")), Quarantine.WRONG_DTYPE),
    "integers": (_fit(bias=np.zeros(3, np.int32)), Quarantine.WRONG_DTYPE),
    "booleans": (_fit(bias=np.zeros(3, np.bool_)), Quarantine.WRONG_DTYPE),
    "complex numbers": (_fit(bias=np.zeros(3, np.complex64)), Quarantine.WRONG_DTYPE),
    "objects": (_fit(bias=np.array([None, [], {}], dtype=object)), Quarantine.WRONG_DTYPE),
    "strings": (_fit(bias=np.array(["a", "b", "c"])), Quarantine.WRONG_DTYPE),
    "records": (_fit(bias=np.zeros(3, [("a", "f4")])), Quarantine.WRONG_DTYPE),
    "dates": (_fit(bias=np.zeros(3, "datetime64[s]")), Quarantine.WRONG_DTYPE),
    "a transposed shape": (_fit(weight=np.zeros((3, 2), np.float32)), Quarantine.WRONG_SHAPE),
    "a flattened tensor": (_fit(weight=np.zeros(6, np.float32)), Quarantine.WRONG_SHAPE),
    "a tensor without dimensions": (_fit(bias=np.zeros((), np.float32)), Quarantine.WRONG_SHAPE),
    "a tensor without values": (_fit(bias=np.zeros(0, np.float32)), Quarantine.WRONG_SHAPE),
    "a shape that broadcasts": (_fit(bias=np.zeros(1, np.float32)), Quarantine.WRONG_SHAPE),
    "four billion values in four bytes": (
        _fit(bias=np.broadcast_to(np.float32(0), (1 << 32,))),
        Quarantine.WRONG_SHAPE,
    ),
}

ODD_BUT_FIT: dict[str, dict[str, Any]] = {
    "negative strides": _fit(bias=np.float32([3, 2, 1])[::-1]),
    "Fortran order": _fit(weight=np.asfortranarray(np.ones((2, 3), np.float32))),
    "every second value": _fit(bias=np.arange(6, dtype=np.float32)[::2]),
    "read-only": _fit(bias=np.frombuffer(bytes(12), np.float32)),
    "unaligned": _fit(bias=np.frombuffer(bytes(13), np.float32, offset=1)),
    "one value repeated by a zero stride": _fit(bias=np.broadcast_to(np.float32(1), (3,))),
    "subnormal numbers": _fit(bias=np.full(3, 1e-45, np.float32)),
}


def _round_with(arrays: Any) -> list[Contribution]:
    return [Contribution("b-honest", _fit()), Contribution("m-odd", arrays), Contribution("z-honest", _fit())]


@pytest.mark.parametrize(("arrays", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_an_unfit_update_is_set_aside_by_name_and_the_rest_goes_on(arrays, reason) -> None:
    screened = screen(_round_with(arrays), LAYOUT, MAX_NORM)
    assert dict(screened.quarantined) == {"m-odd": reason}
    assert [update.site_id for update in screened.accepted] == ["b-honest", "z-honest"]


@pytest.mark.parametrize("rule", Aggregator)
@pytest.mark.parametrize(("arrays", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_no_rule_is_touched_by_an_unfit_update(arrays, reason, rule) -> None:
    updates = [*_round_with(arrays), Contribution("a-honest", _fit())]
    result = aggregate(updates, rule=rule, num_byzantine=0, layout=LAYOUT, max_norm=MAX_NORM)
    assert all(np.array_equal(result.delta[name], array) for name, array in _fit().items())
    assert dict(result.quarantined) == {"m-odd": reason}


@pytest.mark.parametrize("arrays", ODD_BUT_FIT.values(), ids=ODD_BUT_FIT.keys())
def test_memory_layout_is_no_reason_to_refuse_an_update(arrays) -> None:
    result = aggregate(
        [Contribution("only", arrays)],
        rule=Aggregator.MEAN,
        num_byzantine=0,
        layout=LAYOUT,
        max_norm=MAX_NORM,
    )
    assert all(np.array_equal(result.delta[name], array) for name, array in arrays.items())


def test_of_two_updates_from_one_site_neither_is_used() -> None:
    updates = [*_round_with(_fit()), Contribution("m-odd", _fit())]
    screened = screen(updates, LAYOUT, MAX_NORM)
    assert dict(screened.quarantined) == {"m-odd": Quarantine.DUPLICATE_SITE}
    assert len(screened.accepted) == 2


def test_the_norm_is_that_of_all_tensors_together() -> None:
    three_four = {"a": np.float32([3.0]), "b": np.float32([4.0])}
    layout = {"a": (1,), "b": (1,)}
    assert screen([Contribution("s", three_four)], layout, 5.0).accepted
    assert not screen([Contribution("s", three_four)], layout, 4.999).accepted


@given(position=st.integers(0, 299_999), poison=st.sampled_from([math.nan, math.inf, -math.inf]))
def test_one_poisoned_value_is_found_wherever_it_is(position: int, poison: float) -> None:
    values = np.zeros(300_000, np.float32)
    values[position] = poison
    screened = screen([Contribution("s", {"w": values})], {"w": values.shape}, 1.0)
    assert dict(screened.quarantined) == {"s": Quarantine.NON_FINITE}


UNUSABLE_WEIGHTS = [None, 0, -1, 1.5, math.nan, True, "10", np.int64(3)]


@pytest.mark.parametrize("num_examples", UNUSABLE_WEIGHTS, ids=repr)
def test_an_unusable_number_of_examples_matters_only_where_it_would_be_used(num_examples) -> None:
    updates = [Contribution("s", _fit(), num_examples)]
    assert dict(screen(updates, LAYOUT, MAX_NORM, weighted=True).quarantined) == {"s": Quarantine.NO_WEIGHT}
    assert not screen(updates, LAYOUT, MAX_NORM).quarantined


@dataclass(frozen=True)
class Admitted:
    """Shaped like an admitted update: more attributes than aggregation asks for, a read-only mapping."""

    site_id: str
    arrays: Mapping[str, Any]
    num_examples: int | None
    digest: str


def test_any_object_with_the_right_attributes_is_an_update() -> None:
    screened = screen([Admitted("s", MappingProxyType(_fit()), 7, "00")], LAYOUT, MAX_NORM)
    assert [update.num_examples for update in screened.accepted] == [7]


WRONG_CALLS: dict[str, dict[str, Any]] = {
    "an empty layout": {"layout": {}},
    "a size that is not a number": {"layout": {"w": ("3",)}},
    "a negative size": {"layout": {"w": (-1,)}},
    "a shape that is not a tuple": {"layout": {"w": 3}},
    "a bound of zero": {"max_norm": 0.0},
    "a negative bound": {"max_norm": -1.0},
    "a bound that is not a number": {"max_norm": math.nan},
    "an infinite bound": {"max_norm": math.inf},
    "no bound": {"max_norm": None},
    "a bound of True": {"max_norm": True},
    "an update without a name": {"contributions": [Contribution("", _fit())]},
    "an update whose name is a number": {"contributions": [Contribution(7, _fit())]},  # type: ignore[arg-type]
    "something that is no update": {"contributions": [object()]},
    "None for an update": {"contributions": [None]},
}


@pytest.mark.parametrize("wrong", WRONG_CALLS.values(), ids=WRONG_CALLS.keys())
def test_a_call_that_makes_no_sense_is_refused_with_a_typed_error(wrong) -> None:
    settings = {"contributions": _round_with(_fit()), "layout": LAYOUT, "max_norm": MAX_NORM} | wrong
    with pytest.raises(InvalidAggregation) as refusal:
        screen(**settings)
    assert isinstance(refusal.value, AggregationError)
