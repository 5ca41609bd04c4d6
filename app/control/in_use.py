"""409 `in_use`: what still hangs on a resource that was to be deleted."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import Conflict, FieldError
from app.store.tables import DeploymentRow


def in_use(kind: str, left: Sequence[DeploymentRow]) -> Conflict:
    """The conflict, listing the deployments by id and name."""
    listed = ", ".join(f"{row.id} ({row.name})" for row in left)
    return Conflict(
        f"This {kind} still has deployments; delete them first: {listed}",
        code="in_use",
        fields=[FieldError(row.id, row.name, "in_use") for row in left],
    )
