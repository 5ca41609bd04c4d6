"""Limits on the wire, as read; shown by more than one resource."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.control.fields import ReadModel, Time
from app.control.standings import Use
from app.domain.limits import Limit, Metric, shown_amount
from app.domain.windows import Window


class LimitRead(ReadModel):
    """A limit as it was set. Money is a decimal string in the tenant's currency."""

    metric: Metric
    window: Window
    amount: int | str
    model: str | None
    provider: str | None
    api_key_id: str | None

    @classmethod
    def of(cls, limit: Limit) -> LimitRead:
        return cls(**_fields(limit))


class LimitUse(LimitRead):
    """A limit that holds, and what is left of it."""

    source: Literal["tenant", "platform"] = Field(description="Whose it is: the tenant's own, or the default for all.")
    used: int | str = Field(description="Settled in this window; of what is deployed, what is there now.")
    held: int | str = Field(
        description="Put aside by processes for calls that are open or about to come; comes back unless it is used."
    )
    remaining: int | str = Field(description="What can still be granted: amount - used - held, and never below zero.")
    resets_at: Time | None = Field(description="When the window ends, in whose place the next begins; null: never.")

    @classmethod
    def of_use(cls, use: Use) -> LimitUse:
        def shown(amount: int) -> int | str:
            return shown_amount(use.limit, amount)

        return cls(
            **_fields(use.limit),
            source="tenant" if use.own else "platform",
            used=shown(use.used),
            held=shown(use.held),
            remaining=shown(use.remaining),
            resets_at=use.resets_at,
        )


def _fields(limit: Limit) -> dict[str, Any]:
    return {
        "metric": limit.metric,
        "window": limit.window,
        "amount": shown_amount(limit, limit.amount),
        "model": limit.model,
        "provider": limit.provider,
        "api_key_id": limit.api_key_id,
    }
