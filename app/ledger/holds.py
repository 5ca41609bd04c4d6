"""Holds: what has been put aside for a call, from its admission to its one end."""

from __future__ import annotations

from typing import NamedTuple

from app.domain.estimate import Estimate, InputSize
from app.domain.metering import Amounts, Subject
from app.domain.usage import Charge, Outcome, TokenUsage
from app.ledger.journal import Segment
from app.ledger.records import Admitted, Settled, SettledFields, Terms
from app.ledger.slices import Slice
from app.ledger.terms import Account


class Plan(NamedTuple):
    """Which slices a subject's calls take from, and what the journal says of them (under `number`); made once a window.

    It holds until the first of its windows ends (our clock), or until the terms change (`version`).
    """

    account: Account
    terms: Terms
    number: int
    encoded: bytes
    slices: tuple[tuple[Slice, int], ...]
    until: float
    version: int


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

    `charged`, `settled` and `settled_in` are there only when it has been settled.
    """

    __slots__ = (
        "admitted_at",
        "admitted_in",
        "amounts",
        "charged",
        "client_request_id",
        "ended",
        "plan",
        "request_id",
        "settled",
        "settled_in",
        "size",
        "unmetered",
    )

    charged: Amounts
    settled: SettledFields
    settled_in: Segment | None

    def __init__(
        self,
        request_id: str,
        client_request_id: str | None,
        size: CallSize,
        plan: Plan,
        amounts: Amounts,
        admitted_in: Segment,
        admitted_at: int,
        unmetered: bool,
    ) -> None:
        self.request_id = request_id
        self.client_request_id = client_request_id
        self.size = size
        self.plan = plan
        self.amounts = amounts
        self.admitted_in = admitted_in
        self.admitted_at = admitted_at
        self.unmetered = unmetered
        self.ended = False

    @property
    def end(self) -> Settled:
        """How it ended; only for a settled hold."""
        return Settled(*self.settled)

    @property
    def admitted(self) -> Admitted:
        return Admitted(self.request_id, self.client_request_id, self.size.estimate, self.plan.terms)


def settled_of(
    request_id: str,
    finish: Finish,
    usage: TokenUsage | None,
    charge: Charge,
    picos: int | None,
    marks: tuple[str, ...],
) -> SettledFields:
    """What to write down of an end: the fields of `Settled`.

    Counts that the upstream gave stay as they are; those it did not give are the charge's, if there is one.
    """
    requests, input_tokens, output_tokens, _, estimated = charge
    said_input, said_output, said_cached, said_reasoning = usage or _NOT_SAID
    served = finish.served
    return (
        request_id,
        finish.outcome,
        finish.status_code,
        finish.attempts,
        input_tokens if said_input is None and requests else said_input,
        output_tokens if said_output is None and requests and estimated else said_output,
        said_cached,
        said_reasoning,
        requests,
        input_tokens,
        output_tokens,
        estimated,
        picos,
        finish.queue_ms,
        finish.connect_ms,
        finish.first_byte_ms,
        finish.total_ms,
        finish.request_bytes,
        finish.response_bytes,
        marks,
        None if served is None else (served.deployment_id, served.provider, served.model),
    )


_NOT_SAID = TokenUsage()
