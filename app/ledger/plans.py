"""Plans: what each kind of call takes from, worked out once for its windows and then looked up."""

from __future__ import annotations

import itertools
import math

from app.domain.limits import Limit, Metric
from app.domain.metering import COST, Counted, Subject
from app.domain.prices import Rates
from app.domain.usage import Rule
from app.domain.windows import FOREVER, span_at
from app.errors import GatewayError
from app.ledger.holds import Plan
from app.ledger.leaseholder import Leaseholder
from app.ledger.records import Terms
from app.ledger.refusals import Reason, Refusal
from app.ledger.slices import Shelf, Slice
from app.ledger.terms import Account, TermsBook

_OF_TOKENS = frozenset({Metric.TOKENS, Metric.INPUT_TOKENS, Metric.OUTPUT_TOKENS})
_MOST_PLANS = 200_000
"""Beyond so many kinds of calls all plans are made again when they are needed."""


class Plans:
    def __init__(self, terms: TermsBook, shelf: Shelf, holder: Leaseholder) -> None:
        self.made: dict[Subject, Plan] = {}
        """Also such as hold no more: see `current`."""
        self._terms = terms
        self._shelf = shelf
        self._holder = holder
        self._numbers = itertools.count(1)

    def current(self, subject: Subject, now: float) -> Plan | None:
        """The plan that holds now (our clock), if it has been made already."""
        plan = self.made.get(subject)
        return None if plan is None or now >= plan.until or plan.version != self._terms.version else plan

    async def make(self, subject: Subject) -> Plan | Refusal:
        """Waits only for a tenant that is not known here yet. Refused until the ledger has been started."""
        if not self._holder.knows_time:
            return Refusal(Reason.STORE)
        account = self._terms.get(subject.tenant_id)
        if account is None:
            try:
                account = await self._terms.look_up(subject.tenant_id)
            except GatewayError:
                account = None
        if account is None:
            return Refusal(Reason.STORE)
        if len(self.made) >= _MOST_PLANS:
            self.made.clear()
        plan = self.made[subject] = self._make(account, subject)
        return plan

    def rates_of(self, account: Account, subject: Subject) -> Rates | None:
        return self._terms.rates(account, subject, self._holder.database_time())[0]

    def clear(self) -> None:
        self.made.clear()

    def _make(self, account: Account, subject: Subject) -> Plan:
        now = self._holder.database_time()
        rates, prices_change_at = self._terms.rates(account, subject, now)
        slices = [self._slice(account, limit, now) for limit in self._terms.applying(account, subject)]
        terms = Terms(
            subject,
            account.currency,
            rates,
            account.settlement.gateway_lost,
            tuple(Counted(one.key, one.span.end, one.index) for one in slices),
        )
        ends_at = min(
            min((one.span.end for one in slices), default=FOREVER),
            math.inf if prices_change_at is None else prices_change_at,
        )
        return Plan(
            account=account,
            terms=terms,
            number=next(self._numbers),
            columns=terms.columns(),
            slices=tuple((one, one.index) for one in slices),
            until=ends_at - self._holder.database_offset,
            version=self._terms.version,
            charges_reports=account.settlement.complete is Rule.REPORTED,
            counted_rates=rates if any(one.index == COST for one in slices) else None,
            told=(
                tuple(one for one in slices if one.limit.metric is Metric.REQUESTS),
                tuple(one for one in slices if one.limit.metric in _OF_TOKENS),
            ),
        )

    def _slice(self, account: Account, limit: Limit, now: float) -> Slice:
        return self._shelf.get(account.tenant_id, limit, span_at(limit.window, account.time_zone, now))
