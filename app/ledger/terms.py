"""Terms: who is limited by what, and what it costs, in memory; read whole once, then by the change feed.

A tenant that is not known yet is looked up before its first call is let through, so that nobody is
without limits in the moment after they were set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from app.domain.limits import Limit, applying, effective
from app.domain.metering import Subject
from app.domain.prices import Price, Rates, price_at
from app.domain.usage import DEFAULT_SETTLEMENT, Settlement, settlement_of
from app.errors import GatewayError
from app.kit.logging import get_logger
from app.store import changes, limits
from app.store.limits import TenantTerms
from app.store.session import Session, Store
from app.store.tables.tenants import PLATFORM

POLL_SECONDS = 1.0
_KINDS = frozenset({"tenant", "limits", "price"})
_REREAD_SECONDS = changes.KEPT_MINUTES * 60 / 2

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """One tenant's terms."""

    tenant_id: str
    currency: str
    time_zone: str
    settlement: Settlement
    open_on_store_loss: bool
    limits: tuple[Limit, ...]


@dataclass(slots=True)
class _Read:
    """What has been read, before it is put together."""

    tenants: dict[str, TenantTerms] = field(default_factory=dict)
    own: dict[str, list[Limit]] = field(default_factory=dict)
    defaults: list[Limit] = field(default_factory=list)
    prices: list[Price] = field(default_factory=list)


class TermsBook:
    """`version` counts the changes; `on_change` hears whose terms have changed (None: everybody's)."""

    def __init__(self, store: Store, clock: Callable[[], float], on_change: Callable[[str | None], None]) -> None:
        self.version = 0
        self._store = store
        self._clock = clock
        self._on_change = on_change
        self._lock = asyncio.Lock()
        self._read = _Read()
        self._accounts: dict[str, Account] = {}
        self._settlements: dict[tuple[tuple[str, object], ...], Settlement] = {}
        self._xmin: int | None = None
        self._read_at = 0.0

    def get(self, tenant_id: str) -> Account | None:
        """None: not known here (yet). Ask `look_up`."""
        found = self._accounts.get(tenant_id)
        if found is None and tenant_id in self._read.tenants:
            found = self._accounts[tenant_id] = self._account(self._read.tenants[tenant_id])
        return found

    def applying(self, account: Account, subject: Subject) -> tuple[Limit, ...]:
        """The limits that a call of this subject has to keep."""
        names = (subject.route, subject.model)
        return applying(account.limits, api_key_id=subject.api_key_id, names=names, provider=subject.provider)

    def rates(self, account: Account, subject: Subject, now: float) -> tuple[Rates | None, float | None]:
        """What it costs at `now` (Unix seconds), and when that may change."""
        prices = self._read.prices
        price = price_at(
            prices,
            deployment_id=subject.deployment_id,
            model=subject.model,
            currency=account.currency,
            moment=now,
        )
        later = [one.effective_from for one in prices if one.effective_from > now]
        return (None if price is None else price.rates()), min(later, default=None)

    async def look_up(self, tenant_id: str) -> Account | None:
        """Read what is new now; None: there is no such tenant. Raises StoreUnavailable."""
        await self.poll()
        return self.get(tenant_id)

    async def poll(self) -> None:
        """Take in what has been committed before this call. Raises StoreUnavailable."""
        async with self._lock:
            began = self._clock()
            if self._xmin is None or began - self._read_at > _REREAD_SECONDS:
                await self._read_all()
            else:
                await self._read_changes(self._xmin)
            self._read_at = began

    async def run(self) -> None:
        """Poll for ever. A database that is away ends the leases; the terms stay as they were last seen."""
        failing = False
        while True:
            try:
                await self.poll()
                failing = False
            except GatewayError as away:
                if not failing:
                    log.warning("terms_not_read", detail=away.detail)
                failing = True
            await asyncio.sleep(POLL_SECONDS)

    async def _read_all(self) -> None:
        async with self._store.read() as session:
            xmin = await changes.current_xmin(session)
            read = _Read()
            await _read_into(read, session, None)
        self._read, self._xmin = read, xmin
        self._accounts.clear()
        self._changed(None)

    async def _read_changes(self, xmin: int) -> None:
        async with self._store.read() as session:
            feed = await changes.read_since(session, xmin)
            changed = [(kind, one) for kind, one in feed.changed if kind in _KINDS]
            owners = {one for kind, one in changed if kind != "price"}
            if owners:
                await _read_into(self._read, session, owners)
            repriced = any(kind == "price" for kind, _ in changed)
            if repriced:
                self._read.prices = await limits.prices(session)
        self._xmin = feed.next_xmin
        self._forget(owners)
        self.version += repriced

    def _forget(self, owners: Iterable[str]) -> None:
        """Only what really differs counts as a change: the feed repeats itself."""
        for owner in owners:
            if owner == PLATFORM:
                self._accounts.clear()
                self._changed(None)
                continue
            before = self._accounts.pop(owner, None)
            if before is not None and self.get(owner) != before:
                self._changed(owner)

    def _changed(self, owner: str | None) -> None:
        self.version += 1
        self._on_change(owner)

    def _account(self, terms: TenantTerms) -> Account:
        return Account(
            tenant_id=terms.tenant_id,
            currency=terms.currency,
            time_zone=terms.time_zone,
            settlement=self._settlement(terms.settlement),
            open_on_store_loss=terms.on_store_loss == "open",
            limits=effective(self._read.own.get(terms.tenant_id, ()), self._read.defaults),
        )

    def _settlement(self, overrides: Mapping[str, object]) -> Settlement:
        """One value for all tenants that say the same; most say nothing."""
        if not overrides:
            return DEFAULT_SETTLEMENT
        key = tuple(sorted((name, str(value)) for name, value in overrides.items()))
        return self._settlements.setdefault(key, settlement_of(overrides))


async def _read_into(read: _Read, session: Session, owners: set[str] | None) -> None:
    """Everything, or these tenants and the platform's defaults."""
    found = await limits.by_owner(session, None if owners is None else {*owners, PLATFORM})
    read.defaults = found.pop(PLATFORM, [])
    tenants = {one.tenant_id: one for one in await limits.tenant_terms(session, owners)}
    for owner in owners or ():
        read.own.pop(owner, None)
        read.tenants.pop(owner, None)
    read.own |= found
    read.tenants |= tenants
    if owners is None:
        read.prices = await limits.prices(session)
