"""Computing with dates: it never raises, and it never moves a moment that has a date."""

from __future__ import annotations

import ast
import math
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aegis
import coreason_enclave
from coreason_enclave.attestation.evidence import CpuKind
from coreason_enclave.attestation.reference_values import ReferenceValue
from coreason_enclave.attestation.verify.dcap import DcapPlatformPolicy
from coreason_enclave.system.timestamps import DAY_S, as_datetime, as_text, end_of, unix_seconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS = st.one_of(st.integers(), st.integers(-(1 << 70), 1 << 70), st.floats())
ZONES = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(timezones=ZONES) | st.sampled_from(
    [
        whole.replace(tzinfo=timezone(timedelta(minutes=minutes)))
        for whole in (datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59))  # noqa: DTZ001 - zones follow
        for minutes in (-1439, 0, 1439)
    ]
)
DAYS = st.dates() | st.sampled_from([date.min, date.max])


@given(MOMENTS)
def test_a_moment_is_its_distance_from_1970_rounded_down(moment: datetime) -> None:
    assert unix_seconds(moment) == (moment - EPOCH) // timedelta(seconds=1)


@given(DAYS)
def test_a_day_ends_one_day_after_it_begins(day: date) -> None:
    begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
    assert end_of(day) - unix_seconds(begins) == DAY_S
    assert as_datetime(end_of(day) - 1).date() == day


@given(SECONDS)
def test_every_number_is_shown_at_the_nearest_date_there_is(unix: float) -> None:
    shown = as_datetime(unix)
    if math.isnan(unix):
        return
    first, last = unix_seconds(datetime.min.replace(tzinfo=UTC)), unix_seconds(datetime.max.replace(tzinfo=UTC))
    assert unix_seconds(shown) == min(max(first, math.floor(min(max(unix, first), last))), last)
    assert datetime.fromisoformat(as_text(unix)) == shown


@given(SECONDS)
def test_later_numbers_are_never_shown_as_earlier_dates(unix: float) -> None:
    if not math.isnan(unix):
        assert as_datetime(unix) <= as_datetime(unix + abs(unix) + 1)


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        unix_seconds(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


@given(DAYS, st.integers(-(1 << 60), 1 << 60))
def test_graces_and_reference_values_end_with_their_day_whichever_it_is(day: date, now: int) -> None:
    measurements = {"mr_enclave": "ab" * 32}
    value = ReferenceValue(name="agent", kind=CpuKind.SGX, measurements=measurements, not_after=day)
    policy = DcapPlatformPolicy(out_of_date_until=day)
    assert value.matches("sgx", measurements, now) == policy.tolerates_out_of_date(now) == (now < end_of(day))
    last = end_of(day) - 1
    assert value.matches("sgx", measurements, last)
    assert not value.matches("sgx", measurements, last + 1)
    assert policy.tolerates_out_of_date(last)
    assert not policy.tolerates_out_of_date(last + 1)


def test_dates_are_computed_with_in_one_module_alone() -> None:
    """Any of these names can overflow on a date from a document."""
    forbidden = {"timedelta", "fromtimestamp", "utcfromtimestamp", "not_valid_before", "not_valid_after"}
    asked_for = {"not_valid_before", "not_valid_after"}  # as methods of a builder these are arguments, not dates
    for package in (aegis, coreason_enclave):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
            for node in ast.walk(tree):
                name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
                allowed = name in asked_for and id(node) in called
                assert name not in forbidden or allowed or path.name == "timestamps.py", f"{path}: {name}"
