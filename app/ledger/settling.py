"""Settling: what an ended call is charged, and what is written down of its end.

Nearly every call completes, and its upstream has counted both sides: such a call is charged what it
said. Everything else goes by its tenant's rules: see `domain/usage.py`.
"""

from __future__ import annotations

from app.domain.metering import Amounts
from app.domain.prices import Rates, micros
from app.domain.usage import NOT_SAID, USAGE_IMPLAUSIBLE, Charge, Outcome, TokenUsage, as_reported, plausible, settle
from app.ledger.holds import Finish, Hold
from app.ledger.records import SettledFields, marked

_COMPLETE = Outcome.COMPLETE
_NOBODY_ELSE = (None, None, None)


def settling(hold: Hold, finish: Finish, rates: Rates | None) -> tuple[SettledFields, Amounts, int | None]:
    """The fields of `Settled`, what the call takes from its limits, and its input tokens if its upstream counted them.

    Counts that the upstream gave stay as they are; those it did not give are the charge's, if there is one.
    """
    (
        outcome,
        usage,
        _,
        status_code,
        attempts,
        queue_ms,
        connect_ms,
        first_byte_ms,
        total_ms,
        request_bytes,
        response_bytes,
        served,
        marks,
    ) = finish
    charge = as_reported(usage) if outcome is _COMPLETE and hold.plan.charges_reports else None
    if charge is None:
        usage, charge, marks = _by_rule(hold, finish)
    requests, input_tokens, output_tokens, cached_tokens, estimated = charge
    said_input, said_output, said_cached, said_reasoning = usage or NOT_SAID
    picos = None if rates is None else rates.cost_picos(input_tokens, output_tokens, cached_tokens, requests)
    fields = (
        hold.request_id,
        outcome,
        status_code,
        attempts,
        input_tokens if said_input is None and requests else said_input,
        output_tokens if said_output is None and requests and estimated else said_output,
        said_cached,
        said_reasoning,
        requests,
        input_tokens,
        output_tokens,
        estimated,
        picos,
        queue_ms,
        connect_ms,
        first_byte_ms,
        total_ms,
        request_bytes,
        response_bytes,
        marked(marks),
        *(_NOBODY_ELSE if served is None else (served.deployment_id, served.provider, served.model)),
    )
    tokens = input_tokens + output_tokens
    cost = micros(picos) if picos else 0
    counted = None if estimated else said_input
    return fields, (requests, tokens, input_tokens, output_tokens, cost, 0), counted


def _by_rule(hold: Hold, finish: Finish) -> tuple[TokenUsage | None, Charge, tuple[str, ...]]:
    """What of the upstream's counts can be, what the tenant's rule makes of it, and the marks of the end."""
    usage, is_plausible = plausible(finish.usage)
    charge = settle(
        finish.outcome,
        estimate=hold.size.estimate,
        reported=usage,
        produced_tokens=finish.produced_tokens,
        rules=hold.plan.account.settlement,
    )
    return usage, charge, finish.marks if is_plausible else (*finish.marks, USAGE_IMPLAUSIBLE)
