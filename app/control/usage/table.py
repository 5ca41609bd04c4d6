"""Usage as CSV (RFC 4180), written while it is read: a page of the database at a time, in memory never more.

A text that a spreadsheet would take for a formula gets an apostrophe before it, as OWASP advises:
callers choose some of these texts, and others open the file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from starlette.responses import StreamingResponse

from app.control.context import ControlContext
from app.control.fields import ReadModel
from app.control.usage.schemas import UsageSum
from app.control.usage_view import UsageRecordRead
from app.kit.pagination import PageRequest
from app.store import usage_reports
from app.store.rows import Reach
from app.store.usage_reports import UsageFilter

_PAGE = 1_000
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")


def sums_response(found: Sequence[UsageSum]) -> StreamingResponse:
    return _response(_lines_of(_one_page(found), UsageSum))


def records_response(
    context: ControlContext, reach: Reach, wanted: UsageFilter, viewer: str | None
) -> StreamingResponse:
    """`viewer`: the tenant for whom others' deployments are hidden; None sees all. Each page has a session of its own,
    so that a slow reader holds none."""
    return _response(_lines_of(_record_pages(context, reach, wanted, viewer), UsageRecordRead))


async def _one_page(found: Sequence[UsageSum]) -> AsyncIterator[Sequence[UsageSum]]:
    yield found


async def _record_pages(
    context: ControlContext, reach: Reach, wanted: UsageFilter, viewer: str | None
) -> AsyncIterator[Sequence[UsageRecordRead]]:
    after: str | None = None
    while True:
        async with context.store.read() as session:
            rows = await usage_reports.records_page(session, reach, PageRequest(_PAGE, after, b""), wanted)
            named = [row.deployment_id for row in rows if row.deployment_id]
            own = None if viewer is None else await usage_reports.owned(session, viewer, named)
        yield [UsageRecordRead.of(row, own) for row in rows[:_PAGE]]
        if len(rows) <= _PAGE:
            return
        after = rows[_PAGE - 1].id


def _response(lines: AsyncIterator[bytes]) -> StreamingResponse:
    headers = {"content-disposition": 'attachment; filename="usage.csv"'}
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)


async def _lines_of(pages: AsyncIterator[Sequence[ReadModel]], model: type[ReadModel]) -> AsyncIterator[bytes]:
    names = list(model.model_fields)
    yield _written([names])
    async for page in pages:
        yield _written(_cells(one, names) for one in page)


def _cells(one: ReadModel, names: Sequence[str]) -> list[Any]:
    shown = one.model_dump(mode="json")
    return [_safe(shown[name]) for name in names]


def _safe(value: Any) -> Any:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def _written(rows: Iterable[Sequence[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()
