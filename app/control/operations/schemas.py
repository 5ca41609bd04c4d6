"""Operations on the wire."""

from __future__ import annotations

from pydantic import Field

from app.control.fields import Listing, ReadModel, TenantPageQuery, Time
from app.domain.operation import OperationStatus, OperationType
from app.store.tables import OperationRow


class OperationQuery(TenantPageQuery):
    """Filters of the list."""

    deployment_id: str | None = Field(None, max_length=40, description="Only operations of this deployment.")
    status: OperationStatus | None = Field(None, description="Only operations with this status.")


class OperationError(ReadModel):
    """Why an operation failed; `provider_request_id` is for the platform's support."""

    code: str | None
    message: str
    provider_request_id: str | None = None


class OperationRead(ReadModel):
    """One asynchronous change asked of a deployment."""

    id: str
    tenant_id: str
    deployment_id: str
    type: OperationType
    status: OperationStatus
    generation: int = Field(description="The deployment's generation that it leads to.")
    attempts: int = Field(description="How often the platform was asked.")
    error: OperationError | None
    created_at: Time
    started_at: Time | None
    submitted_at: Time | None = Field(description="When the platform accepted the change.")
    finished_at: Time | None

    @classmethod
    def of(cls, row: OperationRow) -> OperationRead:
        return cls.model_validate(row)


class OperationList(Listing[OperationRead]):
    """A page of operations."""
