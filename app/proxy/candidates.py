"""Why a call went where it went: every deployment that its name leads to, and what stood in its way.

Looked at when the call has ended, and only for calls that are explained: the choice itself keeps no notes. So what
is said of others is their state a moment later.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from app.errors import GatewayError
from app.kit.clock import rfc3339, utc_now
from app.proxy.call import Call
from app.proxy.resolve import CallTarget
from app.proxy.routing import Routing


class Candidate(NamedTuple):
    deployment_id: str
    taken: bool
    why: str


def candidates_of(call: Call, routing: Routing) -> list[Candidate]:
    """In the order of their priorities; none where the name leads nowhere any more."""
    if call.model is None or call.principal is None or call.principal.tenant_id is None:
        return []
    try:
        tiers = routing.priorities(call.principal.tenant_id, call.model)
    except GatewayError:
        return []
    chosen = None if call.target is None else call.target.deployment.id
    reached = next((at for at, tier in enumerate(tiers) if any(_id(one) == chosen for one in tier)), len(tiers))
    return [
        Candidate(_id(one), _id(one) == chosen, _why(call, one, routing, chosen, behind=at > reached))
        for at, tier in enumerate(tiers)
        for one in tier
    ]


def _why(call: Call, one: CallTarget, routing: Routing, chosen: str | None, *, behind: bool) -> str:
    if _id(one) == chosen:
        return "chosen"
    if _id(one) in call.tried:
        return "tried before"
    health = routing.health
    if health.is_broken(one):
        return "breaker open"
    if not health.admits(one):
        return f"busy until {rfc3339(utc_now() + timedelta(seconds=health.wait_seconds([one])))}"
    if routing.is_full(one):
        return "full"
    if behind:
        return "lower priority"
    return "not drawn" if health.trusts(one) else "doubtful"


def _id(target: CallTarget) -> str:
    return target.deployment.id
