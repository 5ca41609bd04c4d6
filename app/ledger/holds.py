"""Holds: what has been put aside for a call, from its admission to its one end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from app.domain.estimate import Estimate, InputSize
from app.domain.metering import Amounts, Subject
from app.domain.prices import Rates, micros
from app.domain.usage import Outcome, TokenUsage
from app.ledger.journal import Segment
from app.ledger.records import Settled, SettledFields, Terms
from app.ledger.slices import Slice
from app.ledger.terms import Account


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which slices a subject's calls take from, and what the journal says of them (under `number`); made once a window.

    It holds until the first of its windows ends (our clock), or until the terms change (`version`). `columns`: what
    all its records have in common. `charges_reports`: the tenant pays for a complete call what its upstream has
    counted. `counted_rates`: what calls cost, if one of the slices counts money. `told`: the slices of limits on
    requests, and those on tokens, which callers hear of with every answer.
    """

    account: Account
    terms: Terms
    number: int
    columns: bytes
    slices: tuple[tuple[Slice, int], ...]
    until: float
    version: int
    charges_reports: bool
    counted_rates: Rates | None
    told: tuple[tuple[Slice, ...], tuple[Slice, ...]]

    def amounts(self, estimate: Estimate) -> Amounts:
        """What a call of that estimate has to put aside."""
        input_tokens, output_tokens, _ = estimate
        rates = self.counted_rates
        cost = 0 if rates is None else micros(rates.cost_picos(input_tokens, output_tokens))
        return 1, input_tokens + output_tokens, input_tokens, output_tokens, cost, 1


class CallSize(NamedTuple):
    """`input_size` is what the estimate was made from, so that the model's ratio can learn from the report."""

    estimate: Estimate
    input_size: InputSize | None = None


class Finish(NamedTuple):
    """What the data plane knows at a call's one end.

    `usage` is the upstream's last count, `produced_tokens` our count of what was passed on to the client.
    `served`: the subject that really answered, where it is not the one that was admitted.
    """

    outcome: Outcome
    usage: TokenUsage | None = None
    produced_tokens: int = 0
    status_code: int | None = None
    attempts: int = 1
    queue_ms: int | None = None
    connect_ms: int | None = None
    first_byte_ms: int | None = None
    total_ms: int | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None
    served: Subject | None = None
    marks: tuple[str, ...] = ()


class Hold:
    """An admitted call. `unmetered`: let through although the limits could not be counted (`on_store_loss: open`).

    `amounts` is what it takes from its slices: the estimate at first, the charge when it has been settled.
    `settled` is there only then. `admission` are the values of what the journal says of it.
    """

    __slots__ = (
        "admission",
        "admitted_at",
        "admitted_in",
        "amounts",
        "client_request_id",
        "ended",
        "plan",
        "request_id",
        "settled",
        "size",
        "unmetered",
    )

    settled: SettledFields

    def __init__(
        self,
        request_id: str,
        client_request_id: str | None,
        size: CallSize,
        plan: Plan,
        amounts: Amounts,
        admission: bytes,
        admitted_in: Segment,
        admitted_at: int,
        unmetered: bool,
    ) -> None:
        self.request_id = request_id
        self.client_request_id = client_request_id
        self.size = size
        self.plan = plan
        self.amounts = amounts
        self.admission = admission
        self.admitted_in = admitted_in
        self.admitted_at = admitted_at
        self.unmetered = unmetered
        self.ended = False

    @property
    def end(self) -> Settled:
        """How it ended; only for a settled hold."""
        return Settled(*self.settled)


class Ended(NamedTuple):
    """A settled call on its way into the database, in as little memory as it takes; thousands wait there.

    `admission` and `settlement` are the values of what the journal says of it, and `admitted_in` and `settled_in` where
    (None: the end could not be written); `amounts` is what it takes from the slices of its plan; `input_size` and
    `counted`, where its upstream has counted its input tokens, are what the model's ratio can learn from.
    """

    request_id: str
    plan: Plan
    admission: bytes
    settlement: bytes
    amounts: Amounts
    admitted_in: Segment
    settled_in: Segment | None
    input_size: InputSize | None
    counted: int | None
