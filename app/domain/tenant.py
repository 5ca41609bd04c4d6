"""Tenants and the callers that act for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.errors import NotPermitted


class Scope(StrEnum):
    """What an api key may do. `admin` is the platform's: every tenant, shared connections and routes."""

    INFERENCE = "inference"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller: a value, passed on, never kept in a context variable.

    `tenant_id` is None for the platform's own (admin) keys. `models` None means every model the
    tenant may call.
    """

    tenant_id: str | None
    api_key_id: str
    scopes: frozenset[Scope]
    models: frozenset[str] | None = None
    expires_at: datetime | None = None

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope) -> bool:
        """`admin` includes read and write everywhere, but not inference: there is no tenant to bill."""
        return scope in self.scopes or (self.is_admin and scope in {Scope.READ, Scope.WRITE})

    def require(self, scope: Scope) -> None:
        if not self.may(scope):
            raise NotPermitted(f"This key lacks the scope '{scope}'. Use a key that has it, or ask for one.")

    def may_call(self, model: str) -> bool:
        return self.models is None or model in self.models


def may_grant(maker: Principal, scopes: frozenset[Scope], models: frozenset[str] | None) -> bool:
    """A key never grants more than its maker has: neither scopes nor models (time: `may_outlive`)."""
    if maker.is_admin:
        return True
    if not all(maker.may(scope) for scope in scopes):
        return False
    if maker.models is None:
        return True
    return models is not None and models <= maker.models


def may_outlive(maker: Principal, expires_at: datetime | None) -> bool:
    """Nor does it work longer than its maker: else a short-lived key could make itself a permanent one."""
    if maker.is_admin or maker.expires_at is None:
        return True
    return expires_at is not None and expires_at <= maker.expires_at
