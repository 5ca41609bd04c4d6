"""Whose turn it is: which due deployments a replica may claim, so that no account starves another.

    due_at                 when the deployment itself wants to be looked at
    throttled_until        the account was asked to wait: everything of it waits, but for deletes
    auth_failed            nothing can succeed: one deployment at a time tries, once in `probe_seconds`
    PER_CONNECTION         how much of one replica a single account may take

Deletes have a backoff of their own, because what they end costs money until they are done. The bound on
an account is there for platforms that hang: each call then lasts its whole deadline.

The statements are made once, with parameters: to make one anew takes more than a millisecond, and they are
asked whenever a deployment has been looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Interval,
    Select,
    String,
    and_,
    bindparam,
    case,
    exists,
    func,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased

from app.domain.connection import ConnectionStatus
from app.domain.deployment import Wanted
from app.store.tables import ConnectionRow, DeploymentRow, WorkerRow

PER_CONNECTION = 8


@dataclass(frozen=True, slots=True)
class Turns:
    """What a replica knows of itself. `busy`: connection id → claims that it holds."""

    busy: Mapping[str, int] = field(default_factory=dict)
    probe_seconds: float = 60.0

    def parameters(self, node_id: str) -> dict[str, Any]:
        """Of this module's statements."""
        return {"this_node": node_id, "busy": dict(self.busy), "probe_after": timedelta(seconds=self.probe_seconds)}


ANYBODY = Turns()
_is_no_delete = DeploymentRow.wanted != Wanted.DELETED
_auth_failed = ConnectionRow.status == ConnectionStatus.AUTH_FAILED


def in_order() -> tuple[Any, ...]:
    """Deletes first, then by how long they have waited."""
    return (_is_no_delete, DeploymentRow.due_at)


def is_free(row: Any = DeploymentRow) -> ColumnElement[bool]:
    """Not leased, or leased by a worker that is gone. Taking over early is safe: a holder that was only
    paused writes nothing with its old token, and an open create is looked for, never just repeated."""
    holder = func.split_part(row.lock_token, ":", 1)
    alive = exists().where(WorkerRow.id == holder, WorkerRow.expires_at > func.now())
    return or_(row.locked_until.is_(None), row.locked_until < func.now(), ~alive)


def _on_account(statement: Any) -> Any:
    return statement.join(ConnectionRow, ConnectionRow.id == DeploymentRow.connection_id)


def _claimable() -> ColumnElement[bool]:
    here = or_(DeploymentRow.node_id.is_(None), DeploymentRow.node_id == bindparam("this_node", type_=String))
    return and_(DeploymentRow.due_at.is_not(None), is_free(), here, or_(~_auth_failed, ~_probed()))


def _ready_at() -> ColumnElement[datetime]:
    """The latest of what has to be waited for; what is null is not waited for."""
    throttled = case((_is_no_delete, ConnectionRow.throttled_until), else_=null())
    probe_after = bindparam("probe_after", type_=Interval)
    probe = case((_auth_failed, ConnectionRow.checked_at + probe_after), else_=null())
    return func.greatest(DeploymentRow.due_at, throttled, probe)


def _room() -> ColumnElement[int]:
    """How many more claims of a deployment's account may begin here."""
    busy: Any = bindparam("busy", type_=JSONB)
    held = func.coalesce(busy[DeploymentRow.connection_id].astext.cast(Integer), 0)
    free = func.greatest(PER_CONNECTION - held, 0)
    return case((_auth_failed, func.least(free, 1)), else_=free)


def _probed() -> ColumnElement[bool]:
    """Whether somebody tries another deployment of the same account right now."""
    other = aliased(DeploymentRow)
    held = and_(other.connection_id == DeploymentRow.connection_id, other.lock_token.is_not(None), ~is_free(other))
    return exists(select(true()).where(held).correlate(DeploymentRow))


def _whose_turn() -> Select[str]:
    turn = func.row_number().over(
        partition_by=DeploymentRow.connection_id, order_by=(_is_no_delete, DeploymentRow.due_at)
    )
    waiting = (
        _on_account(select(DeploymentRow.id, turn.label("turn"), _room().label("room")))
        .where(_claimable(), _ready_at() <= func.now())
        .subquery()
    )
    return select(waiting.c.id).where(waiting.c.turn <= waiting.c.room)


def _soonest() -> Select[float | None]:
    seconds: Any = func.extract("epoch", func.min(_ready_at()) - func.now())
    statement: Select[float | None] = _on_account(select(seconds)).where(_claimable(), _room() > 0)
    return statement


WHOSE_TURN = _whose_turn()
"""Ids of deployments that may be claimed now."""
SOONEST = _soonest()
"""Seconds until somebody's turn comes, without those whose account is full: the end of a claim wakes us."""
