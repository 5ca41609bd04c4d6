"""What the catalog knows of a wish: plan, template, size and step, checked before money is spent.

The catalog is as old as its last sync, so it refuses only what it is sure of: a model that it does
not have is left to the platform, unless the platform's list is known to be complete.
"""

from __future__ import annotations

from app.control.context import ControlContext
from app.domain.catalog import misfits, unknown_model
from app.domain.deployment import DeploymentSpec
from app.errors import FieldError, InvalidRequest
from app.providers.base import capacity_form
from app.store import catalog
from app.store.session import Session
from app.store.tables import ConnectionRow


async def check_create(
    session: Session, context: ControlContext, connection: ConnectionRow, spec: DeploymentSpec
) -> None:
    """Raises InvalidRequest, naming what is allowed."""
    provider = context.registry.get(connection.provider)
    # In this order: a sync may commit between any two looks, and what is read later knows more.
    is_complete = provider.capabilities.catalog_is_complete and await catalog.is_synced(session, connection.id)
    if await check_fit(session, connection, spec) or not is_complete:
        return
    names = await catalog.names(session, connection.id)
    if spec.model not in names:
        _refuse([unknown_model(spec.model, names, platform=provider.title)])


async def check_fit(session: Session, connection: ConnectionRow, spec: DeploymentSpec) -> bool:
    """Whether the catalog knows the model. Raises InvalidRequest when it does and the wish does not fit."""
    models = await catalog.offered(session, connection.id, spec.model)
    form = capacity_form(spec.capacity) if spec.capacity is not None else None
    _refuse(misfits(models, spec, form))
    return bool(models)


def _refuse(wrong: list[FieldError]) -> None:
    if wrong:
        raise InvalidRequest(wrong[0].message, param=wrong[0].param, code=wrong[0].code, fields=wrong)
