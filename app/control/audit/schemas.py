"""The audit on the wire."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from app.control.fields import Listing, Moment, ReadModel, TenantPageQuery, Time, Word
from app.store.tables import AuditEventRow


class AuditQuery(TenantPageQuery):
    """Filters of the list."""

    resource_type: str | None = Field(
        None, max_length=32, pattern=r"^[a-z_]+$", description="Such as `deployment`, `api_key`, `limits`."
    )
    resource_id: Word | None = Field(None, max_length=128, description="Only what was done to this one.")
    action: str | None = Field(
        None, max_length=64, pattern=r"^[a-z_]+$", description="An operation's name, such as `delete_deployment`."
    )
    since: Moment | None = Field(None, alias="from", description="From this moment on.")
    until: Moment | None = Field(None, alias="to", description="Before this moment.")


class AuditEventRead(ReadModel):
    """One change of the control plane. Reads, and writes that failed, leave none."""

    id: str
    tenant_id: str | None = Field(description="Whose resource it is; null: the platform's.")
    api_key_id: str = Field(description="The key that did it.")
    action: str = Field(description="The operation's name in this document.")
    resource_type: str
    resource_id: str
    request_id: str | None = Field(description="The x-request-id of the call.")
    changes: dict[str, Any] = Field(
        description="The fields and options that were given. Of secret ones only that they were."
    )
    created_at: Time

    @classmethod
    def of(cls, row: AuditEventRow) -> AuditEventRead:
        return cls.model_validate(row)


class AuditEventList(Listing[AuditEventRead]):
    """A page of audit events."""
