"""Where each sealed column belongs: one function a column, used by whoever seals and unseals it."""

from __future__ import annotations

from app.kit.secrets import Place


def pepper(pepper_id: str) -> Place:
    return Place("pepper", None, "peppers", pepper_id, "sealed")


def credentials(connection_id: str, tenant_id: str | None) -> Place:
    return Place("credentials", tenant_id, "connections", connection_id, "credentials_sealed")


def provider_options(deployment_id: str, tenant_id: str) -> Place:
    return Place("provider_options", tenant_id, "deployments", deployment_id, "provider_options_sealed")


def upstream_key(deployment_id: str, tenant_id: str) -> Place:
    return Place("upstream_key", tenant_id, "deployments", deployment_id, "upstream_key_sealed")


def idempotent_answer(api_key_id: str, path: str, key: str) -> Place:
    return Place("idempotent_answer", None, "idempotency_keys", f"{api_key_id} {path} {key}", "answer_sealed")
