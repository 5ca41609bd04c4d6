"""The end of the search for what a create may have made: nothing is proven, and a person decides.

The account is listed once more, so that the person sees at once what it may have been.
"""

from __future__ import annotations

from datetime import timedelta

from app.background import outcome as follow
from app.background.outcome import Outcome
from app.background.steps import Work, call, last_look
from app.providers.base import Discovered
from app.providers.errors import ProviderError
from app.store import deployments
from app.store.session import Store

_NAMED = 5


async def give_up(work: Work, store: Store) -> Outcome:
    """Look a last time for what a create may have made, then name what the account shows that could be it.

    Nothing of a shared account is named: what else is on it is not this tenant's to know.
    """
    found = await last_look(work, store)
    if found is not None:
        return found
    if work.claim.connection.tenant_id is None or not work.provider.capabilities.discover:
        return follow.given_up(work.claim)
    try:
        shown = await call(work, work.provider.discover(work.opened))
    except ProviderError:
        return follow.given_up(work.claim)
    async with store.read() as session:
        held = await deployments.holders(session, work.claim.connection.id)
    likely = [one for one in shown if one.external_id not in held and _may_be_it(work, one)]
    return follow.given_up(work.claim, [_in_words(one) for one in likely[:_NAMED]])


def _may_be_it(work: Work, shown: Discovered) -> bool:
    """Of the wished model, where the platform tells, and not older than our call, by a minute of clocks."""
    intended_at = work.claim.deployment.intended_at
    if shown.created_at and intended_at and shown.created_at < intended_at - timedelta(minutes=1):
        return False
    return shown.model in {None, work.spec.model}


def _in_words(shown: Discovered) -> str:
    return shown.external_id if shown.name in {None, shown.external_id} else f"{shown.external_id} ({shown.name})"
