"""Limits of what is deployed: checked before anything is asked of a platform, exactly also when many ask at once.

    a limit concerns it? ─no─▶ go on, nothing is locked
         │ yes
    hold the tenant's row ─▶ read limits and deployments anew ─▶ room? ─no─▶ 429 insufficient_quota
                                                                  └─yes─▶ write the wish, commit: the next one counts it

What is deleted or has failed gives back what it took: nothing is counted but what is there.
"""

from __future__ import annotations

from app.control.standings import effective_limits, ground_of
from app.domain.capacity import Standing, concerns
from app.domain.limits import OF_CALLS, Limit, Metric, shown_amount
from app.errors import QuotaExceeded
from app.store import tenants
from app.store.session import Session

_ADVICE = {
    Metric.DEPLOYMENTS: "Delete a deployment",
    Metric.CAPACITY_UNITS: "Stop or scale down a deployment",
    Metric.COST_PER_HOUR: "Stop or scale down a deployment",
}


async def check(session: Session, tenant_id: str, wished: Standing) -> None:
    """Raises QuotaExceeded where this deployment, as wished, would take more than is left, and more than it has."""
    if not await _concerning(session, tenant_id, wished):
        return
    tenant = await tenants.hold(session, tenant_id)
    if tenant is None:
        return
    found = await _concerning(session, tenant_id, wished)
    ground = await ground_of(session, tenant, found)
    before = next((one for one in ground.standings if one.deployment_id == wished.deployment_id), None)
    for limit in found:
        others, more = ground.used(limit, but=wished.deployment_id), ground.taken(limit, wished)
        has = 0 if before is None else ground.taken(limit, before)
        if more > has and others + more > limit.amount:
            raise _exceeded(limit, others + has, more - has, tenant.currency)


async def _concerning(session: Session, tenant_id: str, wished: Standing) -> list[Limit]:
    found, _ = await effective_limits(session, tenant_id)
    return [limit for limit in found if limit.metric not in OF_CALLS and concerns(limit, wished)]


def _exceeded(limit: Limit, used: int, more: int, currency: str) -> QuotaExceeded:
    def shown(amount: int) -> str:
        text = str(shown_amount(limit, amount))
        return f"{text} {currency}" if limit.metric is Metric.COST_PER_HOUR else text

    scope = "" if limit.provider is None else f" on {limit.provider}"
    return QuotaExceeded(
        f"The limit '{limit.metric}' of this tenant{scope} is {shown(limit.amount)}; {shown(used)} are taken, and this "
        f"needs {shown(more)} more. {_ADVICE[limit.metric]}, or ask for a higher limit.",
        code="insufficient_quota",
        retryable=False,
    )
