"""What the journal says of a call, and the line that the database makes its usage record of.

An admission and an end are JSON arrays of numbers, null, and plain texts of ours. Such an array without its
brackets is a line of CSV too, with `\\` as the escape, so a record needs no more than to be put together:

    columns of its terms , admission , end      the same bytes for the living and for a replay
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from app.domain.estimate import Estimate
from app.domain.metering import Counted, CounterKey, Subject
from app.domain.prices import Rates
from app.domain.usage import Charge, Outcome, Rule, Settlement, settle
from app.kit import json
from app.kit.ids import created_ms


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

    def columns(self) -> bytes:
        """The columns that all records of these terms have in common: the subject's fields and the currency."""
        return ",".join(_quoted(one) for one in (*self.subject, self.currency)).encode()


class Admitted(NamedTuple):
    """A call that has been let through. Its hold's id is its request id. `terms`: their number."""

    request_id: str
    client_request_id: str | None
    input_tokens: int
    output_tokens: int
    marks: str | None
    terms: int


class Settled(NamedTuple):
    """How it ended, and what it is charged. `served_*` only where another deployment answered than it was admitted for.

    `marks` are put together with blanks, here and there.
    """

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
    marks: str | None
    served_deployment_id: str | None
    served_provider: str | None
    served_model: str | None


AdmittedFields = tuple[str, str | None, int, int, str | None, int]
SettledFields = tuple[Any, ...]
"""The fields of `Admitted` and `Settled` as plain tuples: what the hot path makes, at a third of the cost."""

encode_admitted: Callable[[AdmittedFields], bytes] = json.dumps
encode_settled: Callable[[SettledFields], bytes] = json.dumps


def marked(marks: tuple[str, ...]) -> str | None:
    return " ".join(marks) if marks else None


def line(request_id: str, columns: bytes, admitted: bytes, settled: bytes) -> bytes:
    """The line of CSV for `store/usage`: when it was admitted, then the values of its terms and of the two entries."""
    return b"%d,%b,%b,%b\n" % (created_ms(request_id), columns, admitted, settled)


def values(entry: bytes) -> bytes:
    """An admission or an end without its brackets, to be kept: the encoder's own bytes take up 4 KiB each."""
    return entry[1:-1]


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


def decode_admitted(payload: bytes) -> Admitted:
    return Admitted(*json.loads(payload))


def decode_settled(payload: bytes) -> Settled:
    return Settled(*json.loads(payload))


def lost(admitted: Admitted, terms: Terms) -> Settled:
    """A call whose gateway was killed: nobody knows how it ended."""
    estimate = Estimate(admitted.input_tokens, admitted.output_tokens)
    charge = settle(Outcome.GATEWAY_LOST, estimate=estimate, rules=Settlement(gateway_lost=terms.lost))
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
        _cost_picos(terms.rates, charge),
        *(None,) * 10,
    )


def _cost_picos(rates: Rates | None, charge: Charge) -> int | None:
    if rates is None:
        return None
    return rates.cost_picos(
        charge.input_tokens, charge.output_tokens, charge.cached_input_tokens, requests=charge.requests
    )


def _picos(rates: Rates) -> list[int]:
    return [rates.input_picos, rates.output_picos, rates.cached_input_picos, rates.request_picos]


def _quoted(text: str | None) -> str:
    """A field of CSV, whatever is in it."""
    if text is None:
        return "null"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
