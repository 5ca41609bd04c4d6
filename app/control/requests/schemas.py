"""The explanation of a call on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.control.fields import ReadModel, Time
from app.control.usage_view import UsageRecordRead


class CandidateRead(ReadModel):
    """A deployment that could have answered. Of another tenant's, behind a shared route, the id is null."""

    deployment_id: str | None
    taken: bool | None
    why: str | None


class AttemptRead(ReadModel):
    """One try against one deployment. `upstream_request_id` is for the platform's support."""

    deployment_id: str | None
    upstream_ms: float | None
    status_code: int | None
    error_code: str | None
    upstream_request_id: str | None


class ExplanationRead(ReadModel):
    """What was decided, and by which values. Nothing of a prompt or an answer is kept."""

    model: str | None = Field(description="As it was called.")
    endpoint: str | None
    route_id: str | None = Field(description="Null for a deployment's own name, and for a route of others.")
    outcome: str | None
    status_code: int | None
    error_code: str | None
    limits: list[dict[str, Any]] = Field(description="Those that applied, with their values at admission.")
    estimate: dict[str, Any] | None = Field(description="What was put aside before the call.")
    settlement: dict[str, Any] | None = Field(description="What took its place after the call, and by which rule.")
    candidates: list[CandidateRead]
    attempts: list[AttemptRead]
    timings: dict[str, Any]


class RequestRead(ReadModel):
    """Why a call went where it did, why it was refused, why it was charged what it was."""

    request_id: str
    tenant_id: str
    api_key_id: str
    usage: UsageRecordRead | None = Field(description="Null for a call that was refused: it is counted, not recorded.")
    kept_because: Literal["refused", "failed", "retried", "sampled"] | None
    note: str = Field(description="What is kept of calls such as this, and for how long.")
    explanation: ExplanationRead | None
    explained_at: Time | None
