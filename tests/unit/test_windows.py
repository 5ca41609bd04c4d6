"""Windows: every instant is in exactly one of each kind, and they follow the tenant's wall clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.windows import FOREVER, Span, Window, span_at

ZONES = sorted(available_timezones())
MOMENTS = st.integers(0, int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()))
TURNING = [window for window in Window if window is not Window.NONE]


def at(zone: str, *clock: int, fold: int = 0) -> float:
    return datetime(*clock, tzinfo=ZoneInfo(zone), fold=fold).timestamp()  # type: ignore[misc, arg-type]


def day_of(zone: str, *clock: int, fold: int = 0) -> Span:
    return span_at(Window.DAY, zone, at(zone, *clock, fold=fold))


@given(st.sampled_from(TURNING), st.sampled_from(ZONES), MOMENTS)
def test_every_instant_is_in_one_window_and_windows_tile(window: Window, zone: str, moment: int) -> None:
    """The window of an instant holds it; its neighbours begin where it ends and end where it begins."""
    span = span_at(window, zone, moment)
    assert span.holds(moment)
    assert span_at(window, zone, span.start) == span == span_at(window, zone, span.end - 1)
    assert span_at(window, zone, span.end).start == span.end
    assert span_at(window, zone, span.start - 1).end == span.start


@given(st.sampled_from(ZONES), MOMENTS)
def test_windows_are_nested_a_day_in_its_month(zone: str, moment: int) -> None:
    day, month = span_at(Window.DAY, zone, moment), span_at(Window.MONTH, zone, moment)
    assert month.start <= day.start < day.end <= month.end


@given(st.sampled_from(ZONES), MOMENTS)
def test_no_minute_or_hour_is_longer_than_its_name_says(zone: str, moment: int) -> None:
    for window, seconds in ((Window.MINUTE, 60), (Window.HOUR, 3600)):
        span = span_at(window, zone, moment)
        assert 0 < span.end - span.start <= seconds


@given(st.floats(0, 4e9))
def test_fractions_of_a_second_belong_to_their_second(moment: float) -> None:
    assert span_at(Window.MINUTE, "UTC", moment).holds(moment)


def test_a_day_begins_at_the_tenants_midnight() -> None:
    span = day_of("Asia/Shanghai", 2026, 11, 21, 9, 30)
    assert span == Span(int(at("Asia/Shanghai", 2026, 11, 21)), int(at("Asia/Shanghai", 2026, 11, 22)))


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 6, 1), 24)])
def test_a_day_on_which_clocks_change_has_its_real_length(day: tuple[int, int, int], hours: int) -> None:
    span = day_of("Europe/Berlin", *day, 12)
    assert span.end - span.start == hours * 3600


def test_an_hour_that_the_clock_repeats_is_two_windows() -> None:
    once, again = (
        span_at(Window.HOUR, "Europe/Berlin", at("Europe/Berlin", 2026, 10, 25, 2, 30, fold=f)) for f in (0, 1)
    )
    assert again.start == once.end
    assert once.end - once.start == again.end - again.start == 3600


def test_a_change_inside_an_hour_cuts_it() -> None:
    """Lord Howe moves its clocks by half an hour."""
    before = span_at(Window.HOUR, "Australia/Lord_Howe", at("Australia/Lord_Howe", 2026, 4, 5, 1, 45, fold=1))
    assert before.end - before.start == 1800


def test_midnight_that_does_not_exist_begins_the_day_when_the_clock_jumps() -> None:
    """Cairo went from 23:59:59 to 01:00 on 2014-05-16."""
    span = day_of("Africa/Cairo", 2014, 5, 16, 12)
    assert datetime.fromtimestamp(span.start, ZoneInfo("Africa/Cairo")).hour == 1
    assert datetime.fromtimestamp(span.start - 1, ZoneInfo("Africa/Cairo")).date().day == 15


def test_a_date_that_a_zone_has_skipped_has_no_window() -> None:
    """Samoa had no 2011-12-30."""
    thursday = day_of("Pacific/Apia", 2011, 12, 29, 12)
    saturday = day_of("Pacific/Apia", 2011, 12, 31, 12)
    assert thursday.end == saturday.start


def test_a_month_ends_where_the_next_year_begins() -> None:
    span = span_at(Window.MONTH, "UTC", datetime(2026, 12, 31, 23, tzinfo=UTC).timestamp())
    assert datetime.fromtimestamp(span.end, UTC) == datetime(2027, 1, 1, tzinfo=UTC)
    assert span.end - span.start == timedelta(days=31).total_seconds()


def test_no_window_holds_everything() -> None:
    assert span_at(Window.NONE, "UTC", 0) == span_at(Window.NONE, "Asia/Tokyo", 4e9) == Span(0, FOREVER)


def test_a_zone_that_this_machine_does_not_know_is_utc() -> None:
    assert span_at(Window.DAY, "Mars/Olympus", 1e9) == span_at(Window.DAY, "UTC", 1e9)
