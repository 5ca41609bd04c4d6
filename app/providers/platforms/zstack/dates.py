"""ZStack's dates: Gson's default form (`Nov 14, 2017 10:20:57 PM`), in the server's zone and without naming it.

Newer Java puts a comma after the year and a narrow space before AM or PM. ISO 8601 is read too.
"""

from __future__ import annotations

import re
from datetime import datetime, tzinfo
from typing import Any

_MONTHS = {name: number for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_GSON = re.compile(r"([A-Z][a-z]{2}) (\d{1,2}), (\d{4}),? (\d{1,2}):(\d{2}):(\d{2})\s([AP])M")


def moment(value: Any, zone: tzinfo | None = None) -> datetime | None:
    """The moment, in `zone` where it names none itself; None for what is no date."""
    if not isinstance(value, str):
        return None
    try:
        read = _gson(value.strip()) or datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return read if read.tzinfo or zone is None else read.replace(tzinfo=zone)


def _gson(text: str) -> datetime | None:
    found = _GSON.fullmatch(text)
    if found is None or found[1] not in _MONTHS:
        return None
    hour = int(found[4]) % 12 + (12 if found[7] == "P" else 0)
    return datetime(int(found[3]), _MONTHS[found[1]], int(found[2]), hour, int(found[5]), int(found[6]))  # noqa: DTZ001
