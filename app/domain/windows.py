"""Windows of limits: aligned minutes, hours, days and months in a tenant's time zone, as Unix seconds.

    ──┬── day ──┬── day ──┬── day ──┬──      every instant is in exactly one window of a kind,
      start     end = next start             and each window ends where the next one begins

Days and months begin when the tenant's wall clock first shows their date, so a day has 23 to 25 hours
where clocks change, and a date that a zone has skipped has no window. Minutes and hours follow the
wall clock too, but never span a change of it: an hour that the clock repeats is two windows. Zone
rules are whole seconds (RFC 8536), and so are all edges.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

FOREVER = 2**53
"""The end of the window `none`: later than any clock, and exact in JSON."""

_DAY_SECONDS = 86_400


class Window(StrEnum):
    """How long a limit counts before it begins again; `none` never does."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    NONE = "none"


class Span(NamedTuple):
    """[start, end) in whole Unix seconds."""

    start: int
    end: int

    def holds(self, moment: float) -> bool:
        return self.start <= moment < self.end


_ALWAYS = Span(0, FOREVER)
_CLOCK_SECONDS = {Window.MINUTE: 60, Window.HOUR: 3600}


def span_at(window: Window, time_zone: str, moment: float) -> Span:
    """The window of that kind that holds `moment` (Unix seconds). An unknown zone counts as UTC."""
    second = int(moment // 1)
    if window is Window.NONE:
        return _ALWAYS
    if window in _CLOCK_SECONDS:
        return _clock_span(_CLOCK_SECONDS[window], zone_of(time_zone), second)
    return _calendar_span(window, zone_of(time_zone), second)


@lru_cache(maxsize=1024)
def zone_of(name: str) -> tzinfo:
    """The zone of an IANA name; UTC where this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def _clock_span(seconds: int, zone: tzinfo, second: int) -> Span:
    """Cut at a change of the wall clock, if one lies inside."""
    offset = _offset(zone, second)
    start = second - (second + offset) % seconds
    end = start + seconds
    if _offset(zone, start) != offset:
        start = _first_with(zone, start, second, offset)
    if _offset(zone, end - 1) != offset:
        end = _first_without(zone, second, end - 1, offset)
    return Span(start, end)


def _calendar_span(window: Window, zone: tzinfo, second: int) -> Span:
    """Between the last beginning of a day (month) at or before `second` and the first one after it."""
    here = _local(zone, second)
    label = datetime(here.year, here.month, here.day if window is Window.DAY else 1)  # noqa: DTZ001 - a wall clock's
    # A clock that is set back over midnight shows yesterday's date again, in today's window.
    start = _first_instant(zone, label)
    label = _next_label(window, label)
    end = _first_instant(zone, label)
    while end <= second:
        label = _next_label(window, label)
        start, end = end, _first_instant(zone, label)
    return Span(start, end)


def _next_label(window: Window, label: datetime) -> datetime:
    if window is Window.DAY:
        return label + timedelta(days=1)
    return label.replace(year=label.year + label.month // 12, month=label.month % 12 + 1)


@lru_cache(maxsize=4096)
def _first_instant(zone: tzinfo, label: datetime) -> int:
    """The first second at which the wall clock shows `label` or later."""
    second = int(label.replace(tzinfo=zone).timestamp())
    if _local(zone, second).replace(tzinfo=None) == label:
        return second
    earlier = int(label.replace(tzinfo=zone, fold=1).timestamp())  # `label` is skipped: the change is in between
    return _first_without(zone, min(earlier, second) - 1, max(earlier, second), _offset(zone, min(earlier, second) - 1))


def _first_with(zone: tzinfo, low: int, high: int, offset: int) -> int:
    """The first second after `low` whose offset is that of `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset(zone, middle) == offset else (middle, high)
    return high


def _first_without(zone: tzinfo, low: int, high: int, offset: int) -> int:
    """The first second after `low`, where the offset is still that, at which it is another."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(zone, middle) == offset else (low, middle)
    return high


def _offset(zone: tzinfo, second: int) -> int:
    found = _local(zone, second).utcoffset()
    return 0 if found is None else found.days * _DAY_SECONDS + found.seconds


def _local(zone: tzinfo, second: int) -> datetime:
    return datetime.fromtimestamp(second, zone)
