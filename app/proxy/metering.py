"""Metering: where a call meets the ledger.

    admit ──▶ call.hold ──▶ … sent … ──▶ settle      once, before the caller has the last byte of the answer
        └──▶ 429, 503        │
                             └─ follow               nothing was sent yet, and another deployment is asked instead

Nothing here waits on a warm path, and none of it is a statement. Every call that goes to an upstream comes
through `admit`; `/v1/models` asks nobody and is not metered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Sequence

from app.domain.metering import Subject
from app.domain.prices import Rates
from app.domain.usage import USAGE_IMPLAUSIBLE, Outcome
from app.ledger.holds import CallSize, Finish, Hold
from app.ledger.ledger import Figures, Ledger, Standing
from app.ledger.refusals import Refusal
from app.proxy.call import Call
from app.proxy.call_size import call_size
from app.proxy.endpoints import Endpoint
from app.proxy.rate_headers import rate_lines
from app.proxy.request import AnyRequest
from app.proxy.resolve import CallTarget

_UNMETERED = b"x-modelport-unmetered: true\r\n"
_IMPOSSIBLE = (USAGE_IMPLAUSIBLE,)
_REFUSED, _GATEWAY_LOST = Outcome.REFUSED, Outcome.GATEWAY_LOST


class Metering:
    """Of one process. `refused` counts refusals by their reason."""

    def __init__(self, ledger: Ledger) -> None:
        self.refused: Counter[str] = Counter()
        self._ledger = ledger

    def admit(
        self, call: Call, request: AnyRequest, endpoint: Endpoint, target: CallTarget, tenant_id: str
    ) -> Awaitable[None] | None:
        """Put the estimate of the call aside, before anything of it is sent; None: done, else await it.

        Raises QuotaExceeded and Unavailable.
        """
        assert call.principal is not None  # noqa: S101 - who has a tenant is known
        deployment = target.deployment
        subject = Subject(
            tenant_id,
            call.principal.api_key_id,
            request.model,
            endpoint.name,
            _model(target),
            deployment.id,
            deployment.provider,
        )
        size = call_size(request, endpoint, self._ledger.ratio(subject.model))
        call.meter, call.subject = self, subject
        call.hold = self._ledger.try_hold(subject, call.request_id, size, call.client_request_id)
        return None if call.hold is not None else self._wait(call, subject, size)

    async def follow(self, call: Call, target: CallTarget) -> None:
        """Count the call for the deployment that it goes to now, if no upstream has seen anything of it yet.

        Else it stays where it was admitted, and its record says who answered. Raises as `admit` does.
        """
        hold, subject = call.hold, call.subject
        if call.sent or hold is None or subject is None or subject.deployment_id == target.deployment.id:
            return
        call.subject = _moved(subject, target)
        call.hold, call.admitted = None, False
        self._take(call, await self._ledger.move(hold, call.subject))
        call.admitted = True

    def settle(self, call: Call, last_bytes: int = 0) -> None:
        """Charge what the call took; its outcome, status and usage are known. `last_bytes` are not written yet."""
        hold = call.hold
        if hold is None or hold.ended:
            return
        exchange = call.exchange
        self._ledger.settle(
            hold,
            Finish(
                _GATEWAY_LOST if call.outcome is _REFUSED else call.outcome,
                call.usage,
                call.stream_events or 0,
                call.status_code or None,
                call.attempts,
                int(call.queue_seconds * 1000),
                _milliseconds(call.connect_seconds),
                _milliseconds(call.first_byte_seconds),
                int(call.seconds() * 1000),
                exchange.request_bytes,
                exchange.response_bytes + last_bytes,
                _served(call, hold),
                _IMPOSSIBLE if call.usage_impossible else (),
            ),
        )

    def lines(self, call: Call) -> bytes:
        """What an answer says of its caller's own limits; nothing where there are none."""
        hold = call.hold
        if hold is not None:
            lines = rate_lines(*self._ledger.told(hold.plan))
            return lines + _UNMETERED if hold.unmetered else lines
        plan = None if call.subject is None else self._ledger.plan_of(call.subject)
        return b"" if plan is None else rate_lines(*self._ledger.told(plan))

    def standing(self, call: Call) -> Sequence[Standing]:
        """The caller's limits as they are now, also after a refusal."""
        if call.hold is not None:
            return self._ledger.standing(call.hold.plan)
        plan = None if call.subject is None else self._ledger.plan_of(call.subject)
        return () if plan is None else self._ledger.standing(plan)

    def rates(self, call: Call) -> Rates | None:
        """What the tokens of a settled call cost."""
        hold = call.hold
        return None if hold is None else self._ledger.rates(hold, _served(call, hold))

    def figures(self) -> Figures:
        return self._ledger.figures()

    async def _wait(self, call: Call, subject: Subject, size: CallSize) -> None:
        self._take(call, await self._ledger.hold(subject, call.request_id, size, call.client_request_id))

    def _take(self, call: Call, held: Hold | Refusal) -> None:
        if isinstance(held, Refusal):
            call.refusal = held
            self.refused[held.reason] += 1
            raise held.error()
        call.hold = held


def _served(call: Call, hold: Hold) -> Subject | None:
    """Who answered, where it is not the deployment that the call was admitted for."""
    subject, target = hold.plan.terms.subject, call.target
    if target is None or target.deployment.id == subject.deployment_id:
        return None
    return _moved(subject, target)


def _moved(subject: Subject, target: CallTarget) -> Subject:
    """The same call to another deployment."""
    one = target.deployment
    return subject._replace(model=_model(target), deployment_id=one.id, provider=one.provider)


def _model(target: CallTarget) -> str:
    """What limits and prices call it: as it was deployed, whatever its server calls it."""
    return target.deployment.model or target.served_model


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
