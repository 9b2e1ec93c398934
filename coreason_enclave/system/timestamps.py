"""Times as whole Unix seconds, and days as the seconds at which they end: the only module that computes with dates.

Python's dates end with the year 9999, and adding to a date near that end raises ``OverflowError``. Dates arrive in
vendors' documents, in policies and in strangers' certificates. So this module turns dates into integers, which have no
end. Only display and output turn integers back into dates, clamped to the nearest representable date.

>>> end_of(date(9999, 12, 31)) - unix_seconds(datetime.max.replace(tzinfo=UTC))
1
"""

from __future__ import annotations

from datetime import UTC, date, datetime

DAY_S = 86_400
CLOCK_SKEW_S = 60
"""Seconds by which two honest clocks may differ, or by which one may step back."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC, microsecond=0)


def unix_seconds(moment: datetime) -> int:
    """Return the whole Unix second that contains ``moment``; raise ``ValueError`` for a moment without a time zone."""
    if moment.tzinfo is None:
        raise ValueError("the date has no time zone")
    since = moment - _EPOCH  # a difference holds any two dates; its parts are integers
    return since.days * DAY_S + since.seconds


def end_of(day: date) -> int:
    """Return the first Unix second (UTC) after ``day``."""
    return (day.toordinal() - _EPOCH_DAY + 1) * DAY_S


def as_datetime(unix: float) -> datetime:
    """Return the moment in UTC, to the second, clamped to the years 1 to 9999."""
    if not unix >= unix_seconds(_FIRST):  # also true for NaN
        return _FIRST
    if unix > unix_seconds(_LAST):
        return _LAST
    return datetime.fromtimestamp(int(unix // 1), UTC)


def as_text(unix: float) -> str:
    """Return the moment in UTC as ISO 8601, to the second."""
    return as_datetime(unix).isoformat(timespec="seconds")
