"""Modelport as it is run for customers: a real `modelport serve` with its embedded Postgres, every feature on.

A tenant with an api key and limits that are never reached, a route whose name has another length than the served
model's, access lines to a file, journal and usage to Postgres. What this version does not have yet is said in
`missing`, not passed over. Postgres runs on the other core, where its CPU time is read separately.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.certificate import Certificate
from bench.machine import GATEWAY_CPU, LOAD_CPU, Group, is_postgres, move, on_cpu, tree
from bench.subjects import SERVED_MODEL, Subject
from bench.tools import Mock
from tests.support.gateway import Gateway, start, until

_LIMITS = [
    {"metric": "requests", "window": "minute", "amount": 1_000_000_000},
    {"metric": "tokens", "window": "day", "amount": 1_000_000_000_000},
    {"metric": "cost", "window": "month", "amount": 1_000_000_000},
    {"metric": "concurrency", "window": "none", "amount": 1_000_000},
]
_PRICE = {"model": SERVED_MODEL, "currency": "USD", "input_per_million": "0.5", "output_per_million": "1.5"}
_ROUTE, _TLS_ROUTE, _OUTAGE_ROUTE = "assistant", "assistant-tls", "outage"


@dataclass(slots=True)
class Product:
    """One running gateway; `outage` is a route whose two upstreams answer 503 to everything."""

    gateway: Gateway
    data_dir: Path
    plain: Subject
    outage: Subject
    tls: Subject | None = None
    missing: list[str] = field(default_factory=list)

    def gauges(self) -> dict[str, float]:
        """The gauges of /metrics; none where there is no such page."""
        answer = self.gateway.client.get("/metrics")
        return _gauges(answer.text) if answer.status_code == 200 else {}


@contextmanager
def running_product(directory: Path, mock: Mock, certificate: Certificate) -> Iterator[Product]:
    directory.mkdir()
    env = {
        "MODELPORT_ALLOW_PRIVATE_UPSTREAMS": "true",
        "MODELPORT_LOG_LEVEL": "warning",
        "MODELPORT_POLL_INTERVAL_SECONDS": "5",
        "SSL_CERT_FILE": str(certificate.chain),
    }
    with on_cpu(GATEWAY_CPU):
        gateway = start(directory / "data", env=env)
    try:
        gateway.wait_ready()
        postgres = [pid for pid in _with_postmaster(gateway, directory / "data") if is_postgres(pid)]
        move(postgres, LOAD_CPU)
        yield _set_up(gateway, directory, mock, postgres)
    finally:
        gateway.stop()


def _set_up(gateway: Gateway, directory: Path, mock: Mock, postgres: list[int]) -> Product:
    tenant_id = gateway.create("/tenants", name="bench")["id"]
    api_key = gateway.create(f"/tenants/{tenant_id}/api-keys", name="bench", scopes=["inference"])["secret"]
    own = Group(tuple(pid for pid in tree(gateway.process.pid) if pid not in postgres))
    port = int(gateway.url.rpartition(":")[2])

    def subject(name: str, model: str) -> Subject:
        return Subject(name, port, api_key, model, own, Group(tuple(postgres)), directory / f"bodies-{model}")

    origin = f"http://127.0.0.1:{mock.port}"
    _serve(gateway, tenant_id, _ROUTE, f"{origin}/v1")
    _serve(gateway, tenant_id, _OUTAGE_ROUTE, f"{origin}/down/v1", deployments=2)
    product = Product(gateway, directory / "data", subject("modelport", _ROUTE), subject("outage", _OUTAGE_ROUTE))
    if mock.tls_port is not None:
        _serve(gateway, tenant_id, _TLS_ROUTE, f"https://127.0.0.1:{mock.tls_port}/v1")
        product.tls = subject("modelport-tls", _TLS_ROUTE)
    product.missing = _switch_on(gateway, tenant_id)
    return product


def _serve(gateway: Gateway, tenant_id: str, route: str, base_url: str, *, deployments: int = 1) -> None:
    """A connection, its deployments, and the route to them; returns when all are running."""
    gateway.create(
        "/connections",
        name=f"{route}-mock",
        provider="openai_compatible",
        settings={"base_url": base_url},
        credentials={"api_key": "sk-of-the-mock"},
    )
    names = [f"{route}-{number}" for number in range(deployments)]
    for name in names:
        body = {"name": name, "connection": f"{route}-mock", "model": SERVED_MODEL, "tenant_id": tenant_id}
        gateway.wait_status(gateway.create("/deployments", **body)["id"], "running", seconds=30)
    targets = [{"deployment": name, "priority": priority} for priority, name in enumerate(names)]
    gateway.create("/routes", name=route, tenant_id=tenant_id, targets=targets)


def _switch_on(gateway: Gateway, tenant_id: str) -> list[str]:
    """Limits that do not bind, and a price; returns what could not be switched on."""
    missing = []
    scope: dict[str, Any] = {"model": None, "provider": None, "api_key_id": None}
    limits = {"limits": [{**limit, **scope} for limit in _LIMITS]}
    answer = gateway.api("PUT", f"/tenants/{tenant_id}/limits", json=limits)
    if answer.status_code >= 300:
        missing.append(f"limits (PUT answered {answer.status_code})")
    answer = gateway.api("POST", "/prices", json=_PRICE)
    if answer.status_code >= 300:
        missing.append(f"a price (POST answered {answer.status_code})")
    if gateway.api("GET", "/usage", params={"tenant_id": tenant_id}).status_code == 404:
        missing.append("usage")
    if gateway.client.get("/metrics").status_code != 200:
        missing.append("metrics")
    return missing


def wait_callable(subject: Subject) -> None:
    """The directory follows the registry within a second or so."""
    until(lambda: subject.ask().status_code not in {401, 404}, f"{subject.model} can be called")


def _with_postmaster(gateway: Gateway, data_dir: Path) -> list[int]:
    """The gateway's tree and the embedded server's, which may have another parent."""
    found = tree(gateway.process.pid)
    for mark in data_dir.glob("postgres-*/postmaster.pid"):
        found += tree(int(mark.read_text().split()[0]))
    return list(dict.fromkeys(found))


def _gauges(page: str) -> dict[str, float]:
    names = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE") and line.endswith(" gauge")}
    samples = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples if name.partition("{")[0] in names}
