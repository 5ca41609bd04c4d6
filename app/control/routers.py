"""Every operation of the control plane, in the order of the documentation."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.routing import APIRoute

from app.control.api_keys.router import router as api_keys
from app.control.audit.router import router as audit
from app.control.catalog.router import router as catalog
from app.control.connections.router import router as connections
from app.control.deployments.router import adoptions
from app.control.deployments.router import router as deployments
from app.control.health.router import router as health
from app.control.limits.router import router as limits
from app.control.me.router import router as me
from app.control.operations.router import router as operations
from app.control.prices.router import router as prices
from app.control.providers.router import router as providers
from app.control.requests.router import router as requests
from app.control.routes.router import router as routes
from app.control.tenants.router import router as tenants
from app.control.usage.router import router as usage

ROUTERS: tuple[APIRouter, ...] = (
    deployments,
    operations,
    connections,
    adoptions,
    catalog,
    providers,
    routes,
    tenants,
    api_keys,
    limits,
    prices,
    usage,
    requests,
    audit,
    me,
    health,
)


def api_routes() -> Iterator[APIRoute]:
    """Every operation of the control plane."""
    for router in ROUTERS:
        yield from (route for route in router.routes if isinstance(route, APIRoute))
