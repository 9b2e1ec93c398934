"""Moments as whole Unix seconds, and days as the seconds at which they end: the one place that computes with dates.

Python's dates end with the year 9999, and adding to a date near that end raises ``OverflowError``. Dates come from
vendors' documents, from policies and from strangers' certificates. So they are turned into integers, which do not end;
integers are turned back into dates only to be shown or written, at the nearest date that there is.

>>> end_of(date(9999, 12, 31)) - unix_seconds(datetime.max.replace(tzinfo=UTC))
1
"""

from __future__ import annotations

from datetime import UTC, date, datetime

__all__ = ["DAY_S", "as_datetime", "as_text", "end_of", "unix_seconds"]

DAY_S = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.toordinal()
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC, microsecond=0)


def unix_seconds(moment: datetime) -> int:
    """The whole Unix second in which ``moment`` lies; raises ``ValueError`` for a moment without a time zone."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone is no moment")
    since = moment - _EPOCH  # a difference, which has room for any two dates; its parts are integers
    return since.days * DAY_S + since.seconds


def end_of(day: date) -> int:
    """The first Unix second (UTC) that no longer belongs to ``day``."""
    return (day.toordinal() - _EPOCH_DAY + 1) * DAY_S


def as_datetime(unix: float) -> datetime:
    """The moment in UTC, to the second; before the year 1 or after the year 9999 the nearest that there is."""
    if not unix >= unix_seconds(_FIRST):  # not a number, too
        return _FIRST
    if unix > unix_seconds(_LAST):
        return _LAST
    return datetime.fromtimestamp(int(unix // 1), UTC)


def as_text(unix: float) -> str:
    """The moment in UTC as ISO 8601, to the second."""
    return as_datetime(unix).isoformat(timespec="seconds")
