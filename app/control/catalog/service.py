"""Reading the catalog: from Postgres only; no platform is called, so none can be in the way."""

from __future__ import annotations

from collections.abc import Sequence

from app.control.answers import Answer, resource
from app.control.catalog.schemas import CatalogEntryRead, CatalogErrorRead, CatalogPage, CatalogQuery, FreshnessRead
from app.control.context import ControlContext
from app.control.tenancy import listed_reach, missing, reach_label, reach_of
from app.control.usable import usable_connections
from app.domain.tenant import Principal
from app.kit.pagination import cut, page_request
from app.store import catalog
from app.store.session import Session
from app.store.tables import ConnectionRow


async def list_page(session: Session, context: ControlContext, caller: Principal, query: CatalogQuery) -> Answer:
    reach = await listed_reach(session, caller, query.tenant_id)
    covered = _covered(await usable_connections(session, context, caller, reach), query)
    filters = query.model_dump_json(exclude={"page_size", "page_token"})
    page = page_request(query.page_size, query.page_token, "catalog", reach_label(reach), filters)
    found = await catalog.list_page(session, list(covered), query.filter(), page)
    shown, token = cut(found, page)
    syncs = await catalog.syncs(session, list(covered))
    answer = CatalogPage(
        data=[CatalogEntryRead.of_row(row, covered[row.connection_id].name) for row in shown],
        next_page_token=token,
        connections=[FreshnessRead.of(one, syncs.get(one.id)) for one in covered.values()],
        errors=[CatalogErrorRead.of(covered[key], sync) for key, sync in syncs.items() if sync.error],
    )
    return resource(answer)


async def read(session: Session, context: ControlContext, caller: Principal, model_id: str) -> Answer:
    """One entry, of a connection that the caller may use. Raises NotFound."""
    row = await catalog.find(session, model_id)
    usable = await usable_connections(session, context, caller, reach_of(caller)) if row else []
    connection = next((one for one in usable if row and one.id == row.connection_id), None)
    if row is None or connection is None:
        raise missing("catalog model")
    return resource(CatalogEntryRead.of_row(row, connection.name))


def _covered(usable: Sequence[ConnectionRow], query: CatalogQuery) -> dict[str, ConnectionRow]:
    """The connections that the query is about. Raises NotFound for one that it names and that is not there."""
    chosen = [row for row in usable if query.provider is None or row.provider == query.provider.lower()]
    if query.connection is not None:
        chosen = [row for row in chosen if query.connection in {row.name, row.id}]
        if not chosen:
            raise missing("connection", param="connection")
    return {row.id: row for row in chosen}
