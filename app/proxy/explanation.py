"""What is kept of a call that is explained: what was decided and by which values, nothing of a prompt or an answer.

model endpoint route_id outcome status_code error_code
limits       the caller's own as they were when it had ended, and which of them bit
estimate     what was put aside; settlement: what was charged instead, by which rule, and the sum as a text
candidates   the deployments that the name leads to, and why each was or was not taken
attempts     each with its time and what the upstream answered; timings of the whole
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from app.domain.limits import shown_amount
from app.domain.prices import Rates, money
from app.ledger.holds import Hold
from app.ledger.ledger import Standing
from app.ledger.records import Settled
from app.proxy.call import Call, Tried, upstream_request_id
from app.proxy.candidates import Candidate

_MODEL_LENGTH = 200
_PER_MILLION = 1_000_000


def detail_of(
    call: Call, candidates: Sequence[Candidate], standing: Sequence[Standing], rates: Rates | None
) -> dict[str, Any]:
    """The JSON of one call. `standing`: its limits now; `rates`: what its tokens cost where it was answered."""
    route = None if call.target is None else call.target.route
    bit = None if call.refusal is None or call.refusal.limit is None else call.refusal.limit.id
    hold = call.hold
    return {
        "model": (call.model or "")[:_MODEL_LENGTH],
        "endpoint": call.endpoint,
        "route_id": None if route is None else route.id,
        "outcome": call.outcome.value,
        "status_code": call.status_code or None,
        "error_code": call.error_code,
        "limits": [_limit(one, bit) for one in standing],
        "estimate": None if hold is None else hold.size.estimate._asdict(),
        "settlement": _settlement(hold, rates) if hold is not None and hold.ended else None,
        "candidates": [one._asdict() for one in candidates],
        "attempts": _attempts(call),
        "timings": {
            "queue_ms": _milliseconds(call.queue_seconds),
            "connect_ms": _milliseconds(call.connect_seconds),
            "first_byte_ms": _milliseconds(call.first_byte_seconds),
            "total_ms": _milliseconds(call.seconds()),
        },
    }


def _limit(one: Standing, bit: str | None) -> dict[str, Any]:
    limit = one.limit
    return {
        "id": limit.id,
        "metric": limit.metric.value,
        "window": limit.window.value,
        "amount": shown_amount(limit, one.amount),
        "remaining": shown_amount(limit, min(one.remaining, one.amount)),
        "resets_in_seconds": None if one.resets_in_seconds is None else round(one.resets_in_seconds, 3),
        "bit": limit.id == bit,
    }


def _settlement(hold: Hold, rates: Rates | None) -> dict[str, Any]:
    end, plan = hold.end, hold.plan
    priced = end.cost_picos is not None
    return {
        "rule": getattr(plan.account.settlement, end.outcome.value).value,
        "input_tokens": end.charged_input_tokens,
        "output_tokens": end.charged_output_tokens,
        "cached_input_tokens": end.cached_input_tokens,
        "estimated": end.estimated,
        "cost": None if end.cost_picos is None else _plain(money(end.cost_picos)),
        "currency": plan.terms.currency if priced else None,
        "arithmetic": _arithmetic(end, rates) if priced and rates is not None else None,
    }


def _arithmetic(end: Settled, rates: Rates) -> str:
    """Such as `100 in x 0.5 + 20 cached x 0.1 + 50 out x 1.5 per million`."""
    cached = min(end.cached_input_tokens or 0, end.charged_input_tokens)
    parts = [f"{end.charged_input_tokens - cached} in x {_price(rates.input_picos, _PER_MILLION)}"]
    if cached:
        parts.append(f"{cached} cached x {_price(rates.cached_input_picos, _PER_MILLION)}")
    parts.append(f"{end.charged_output_tokens} out x {_price(rates.output_picos, _PER_MILLION)} per million")
    if rates.request_picos:
        parts.append(f"{end.charged_requests} request x {_price(rates.request_picos, 1)}")
    return " + ".join(parts)


def _attempts(call: Call) -> list[dict[str, Any]]:
    found = [_attempt(one) for one in call.history]
    response, target = call.response, call.target
    if response is not None and target is not None:
        request_id = upstream_request_id(response)
        last = Tried(target.deployment.id, response.first_byte_seconds, response.status_code, None, request_id)
        found.append(_attempt(last))
    return found


def _attempt(one: Tried) -> dict[str, Any]:
    return {
        "deployment_id": one.deployment_id,
        "upstream_ms": _milliseconds(one.seconds),
        "status_code": one.status_code,
        "error_code": one.error_code,
        "upstream_request_id": one.upstream_request_id,
    }


def _price(picos: int, tokens: int) -> str:
    return _plain(money(picos) * tokens)


def _plain(amount: Decimal) -> str:
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
