"""What the journal says of a call, and the usage record made of it: the same for the living and for a replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from app.domain.estimate import Estimate
from app.domain.limits import Limit
from app.domain.metering import Counted, CounterKey, Entry, Subject, UsageRecord
from app.domain.prices import Rates, micros, money
from app.domain.usage import Charge, Outcome, Rule, Settlement, settle
from app.kit import json
from app.kit.ids import created_at

_ROUTE_LENGTH, _MODEL_LENGTH = 128, 512


class Terms(NamedTuple):
    """How a subject's calls are charged: the same for all of them until something is changed.

    `rates` None: nobody has said what it costs. `lost`: the tenant's rule for calls of a killed gateway.
    """

    subject: Subject
    currency: str
    rates: Rates | None
    lost: Rule
    counted: tuple[Counted, ...]

    def encoded(self, number: int) -> bytes:
        """For the journal, once in each segment; admissions only name the number."""
        rates = None if self.rates is None else _picos(self.rates)
        counted = [[*one.key, one.window_end, one.metric] for one in self.counted]
        return json.dumps([number, [*self.subject], self.currency, rates, self.lost, counted])


class Admitted(NamedTuple):
    """A call that has been let through. Its hold's id is its request id."""

    request_id: str
    client_request_id: str | None
    estimate: Estimate
    terms: Terms


AdmittedParts = tuple[str, str | None, Estimate, Terms]
"""The fields of `Admitted` as a plain tuple."""


class Settled(NamedTuple):
    """How it ended, and what it is charged."""

    request_id: str
    outcome: Outcome
    status_code: int | None
    attempts: int
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    reasoning_tokens: int | None
    charged_requests: int
    charged_input_tokens: int
    charged_output_tokens: int
    estimated: bool
    cost_picos: int | None
    queue_ms: int | None
    connect_ms: int | None
    first_byte_ms: int | None
    total_ms: int | None
    request_bytes: int | None
    response_bytes: int | None
    marks: tuple[str, ...]
    served: tuple[str | None, str | None, str] | None
    """(deployment id, provider, model) where another deployment answered than the one it was admitted for."""


AdmittedFields = tuple[str, str | None, int, int, tuple[str, ...], int]
"""Request id, client's request id, estimated input and output tokens, the estimate's marks, and its terms' number."""

encode_admitted: Callable[[AdmittedFields], bytes] = json.dumps


def decode_terms(payload: bytes) -> tuple[int, Terms]:
    """Raises ValueError or TypeError for what no release has written, as the others do."""
    number, subject, currency, rates, lost, counted = json.loads(payload)
    terms = Terms(
        Subject(*subject),
        currency,
        None if rates is None else Rates(*rates),
        Rule(lost),
        tuple(Counted(CounterKey(*one[:3]), one[3], one[4]) for one in counted),
    )
    return number, terms


def decode_admitted(payload: bytes, terms: Mapping[int, Terms]) -> Admitted:
    """`terms` of its segment."""
    request_id, client_request_id, input_tokens, output_tokens, marks, number = json.loads(payload)
    return Admitted(request_id, client_request_id, Estimate(input_tokens, output_tokens, tuple(marks)), terms[number])


SettledFields = tuple[Any, ...]
"""The fields of `Settled` as a plain tuple: what the hot path makes, at a third of the cost."""


encode_settled: Callable[[SettledFields], bytes] = json.dumps


def decode_settled(payload: bytes) -> Settled:
    values: list[Any] = json.loads(payload)
    settled = Settled(*values)
    served = None if settled.served is None else (settled.served[0], settled.served[1], settled.served[2])
    return settled._replace(outcome=Outcome(settled.outcome), marks=tuple(settled.marks), served=served)


def lost(admitted: Admitted) -> Settled:
    """A call whose gateway was killed: nobody knows how it ended."""
    terms = admitted.terms
    charge = settle(Outcome.GATEWAY_LOST, estimate=admitted.estimate, rules=Settlement(gateway_lost=terms.lost))
    return Settled(
        admitted.request_id,
        Outcome.GATEWAY_LOST,
        None,
        0,
        charge.input_tokens if charge.estimated else None,
        charge.output_tokens if charge.estimated else None,
        None,
        None,
        charge.requests,
        charge.input_tokens,
        charge.output_tokens,
        charge.estimated,
        cost_picos(terms.rates, charge),
        *(None,) * 6,
        admitted.estimate.marks,
        None,
    )


def cost_picos(rates: Rates | None, charge: Charge) -> int | None:
    if rates is None:
        return None
    return rates.cost_picos(
        charge.input_tokens, charge.output_tokens, charge.cached_input_tokens, requests=charge.requests
    )


def entry(admitted: AdmittedParts, settled: SettledFields, now: datetime) -> Entry:
    """The usage record of a call, and the counters it moves.

    Made as plain tuples are: a named tuple's own constructor costs as much as all the rest of this, for every call.
    """
    request_id, client_request_id, estimate, terms = admitted
    (
        _,
        outcome,
        status_code,
        attempts,
        input_tokens,
        output_tokens,
        cached_input_tokens,
        reasoning_tokens,
        charged_requests,
        charged_input_tokens,
        charged_output_tokens,
        estimated,
        picos,
        queue_ms,
        connect_ms,
        first_byte_ms,
        total_ms,
        request_bytes,
        response_bytes,
        marks,
        served,
    ) = settled
    subject = terms.subject
    deployment_id, provider, model = served or (subject.deployment_id, subject.provider, subject.model)
    cost, currency = (None, None) if picos is None else (money(picos), terms.currency)
    values = (
        created_at(request_id),
        request_id,
        request_id,
        client_request_id,
        subject.tenant_id,
        subject.api_key_id,
        subject.route[:_ROUTE_LENGTH],
        deployment_id,
        provider,
        model[:_MODEL_LENGTH],
        subject.endpoint,
        outcome,
        status_code,
        attempts,
        input_tokens,
        output_tokens,
        cached_input_tokens,
        reasoning_tokens,
        estimated,
        cost,
        currency,
        queue_ms,
        connect_ms,
        first_byte_ms,
        total_ms,
        request_bytes,
        response_bytes,
        now,
        estimate.input_tokens,
        estimate.output_tokens,
        charged_requests,
        charged_input_tokens,
        charged_output_tokens,
        micros(picos or 0),
        list(marks),
    )
    return tuple.__new__(Entry, (tuple.__new__(UsageRecord, values), terms.counted))


def counted_for(tenant_id: str, limit: Limit, window_start: int, window_end: int, metric: int) -> Counted:
    return Counted(CounterKey(tenant_id, limit.id, window_start), window_end, metric)


def _picos(rates: Rates) -> list[int]:
    return [rates.input_picos, rates.output_picos, rates.cached_input_picos, rates.request_picos]
