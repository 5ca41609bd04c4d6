"""What is kept of which calls, and that it stays bounded whatever a tenant does."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from app.domain.tenant import Principal
from app.domain.usage import Outcome
from app.errors import StoreUnavailable
from app.kit.ids import IdSequence
from app.proxy.explaining import MOST_OTHERS, MOST_PENDING, MOST_REFUSALS, Explaining
from app.store.engine import make_engine
from app.store.session import Store

_ids = IdSequence("req")


def ended(outcome: Outcome = Outcome.COMPLETE, tenant_id: str | None = "ten_1", **more: Any) -> Any:
    """A call as `Explaining` looks at it."""
    principal = Principal(tenant_id, "key_1", frozenset())
    known = {"status_code": 200, "attempts": 1, "refusal": None, "principal": principal, **more}
    return SimpleNamespace(request_id=_ids.next(), outcome=outcome, **known)


def refused(tenant_id: str = "ten_1") -> Any:
    return ended(Outcome.REFUSED, tenant_id, status_code=429, refusal=object())


def detail(call: Any) -> dict[str, object]:
    return {"id": call.request_id}


async def reasons(explaining: Explaining, store: Store) -> Counter[str]:
    await explaining.flush()
    async with store.read() as session:
        return Counter(await session.scalars(text("SELECT reason FROM explanations")))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (refused(), "refused"),
        (ended(Outcome.UPSTREAM_FAILED_BEFORE_CONTENT, status_code=502), "failed"),
        (ended(Outcome.UPSTREAM_FAILED_AFTER_CONTENT), "failed"),
        (ended(Outcome.GATEWAY_LOST, status_code=503), "failed"),
        (ended(Outcome.REFUSED, status_code=503), "failed"),
        (ended(attempts=2), "retried"),
        (ended(Outcome.REFUSED, status_code=404), None),
        (ended(Outcome.CLIENT_LEFT), None),
        (ended(), None),
        (ended(Outcome.REFUSED, None, status_code=503), None),
        (ended(Outcome.REFUSED, status_code=401, principal=None), None),
    ],
    ids=["limit", "before", "after", "lost", "nobody", "retried", "unknown", "left", "well", "admin", "stranger"],
)
async def test_each_kept_call_says_why_it_is_kept(store: Store, call: Any, reason: str | None) -> None:
    explaining = Explaining(store, share=0)
    explaining.note(call, detail)
    assert await reasons(explaining, store) == ({} if reason is None else {reason: 1})


async def test_a_share_is_sampled_whatever_else_happens(store: Store) -> None:
    explaining = Explaining(store, share=0.25)
    for _ in range(100):
        explaining.note(ended(), detail)
        explaining.note(refused(), detail)
    assert await reasons(explaining, store) == {"refused": 100, "sampled": 25}


async def test_a_flood_is_bounded_for_each_tenant_and_the_last_refusals_stay(store: Store) -> None:
    explaining = Explaining(store, share=0)
    for _ in range(MOST_REFUSALS + 50):
        explaining.note(last := refused(), detail)
    for _ in range(MOST_OTHERS + 7):
        explaining.note(ended(attempts=2), detail)
    explaining.note(ended(attempts=2, tenant_id="ten_2"), detail)
    assert await reasons(explaining, store) == {"refused": MOST_REFUSALS, "retried": MOST_OTHERS + 1}
    assert explaining.dropped == 57
    async with store.read() as session:
        newest = await session.scalar(text("SELECT max(request_id) FROM explanations WHERE reason = 'refused'"))
    assert newest == last.request_id


async def test_many_tenants_together_are_bounded_too() -> None:
    explaining = Explaining(Store(make_engine("postgresql://nobody@127.0.0.1:9/none")), share=0)
    for number in range(MOST_PENDING + 5):
        explaining.note(refused(f"ten_{number}"), detail)
    assert explaining.dropped == 5
    with pytest.raises(StoreUnavailable):
        await explaining.flush()
    assert explaining.dropped == MOST_PENDING + 5, "what cannot be written is counted"
