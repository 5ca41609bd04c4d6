"""Several processes on one registry: what one knows, all know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.journeys.conftest import deploy, make_local_connection, make_tenant, wait_answers
from tests.support.gateway import Gateway, model_servers, running, until

pytestmark = pytest.mark.demo


@pytest.fixture
def three(data_dir: Path) -> Iterator[list[Gateway]]:
    """Three `serve` processes with one data directory: they share its embedded Postgres."""
    with ExitStack() as stack:
        yield [stack.enter_context(running(data_dir)) for _ in range(3)]
    until(lambda: not model_servers(data_dir), "every model server has ended")


def test_a_new_deployment_answers_and_a_revoked_key_is_refused_on_all_of_them(three: list[Gateway]) -> None:
    tenant = make_tenant(three[0], "acme")
    make_local_connection(three[0])
    deployment = deploy(three[1], tenant, "bot")
    three[2].wait_status(deployment, "running")
    for gateway in three:
        wait_answers(gateway, tenant, "bot")

    key = three[0].api("GET", f"/tenants/{tenant.id}/api-keys").json()["data"][0]
    revoked = three[0].api("DELETE", f"/tenants/{tenant.id}/api-keys/{key['id']}")
    assert revoked.status_code in {200, 204}, revoked.text
    assert three[0].chat(tenant.key, "bot").status_code == 401, "the replica that revoked it refuses at once"
    for gateway in three[1:]:
        until(lambda one=gateway: one.chat(tenant.key, "bot").status_code == 401, "it is refused")


def test_workers_of_one_serve_share_everything(data_dir: Path) -> None:
    """`--workers 2`: the parent does the cluster work, both workers route."""
    with running(data_dir, arguments=("--workers", "2")) as gateway:
        tenant = make_tenant(gateway, "acme")
        make_local_connection(gateway)
        gateway.wait_status(deploy(gateway, tenant, "bot"), "running")
        until(
            lambda: all(gateway.chat(tenant.key, "bot", max_tokens=1).status_code == 200 for _ in range(10)),
            "all workers route to it",
        )
        assert len(model_servers(data_dir)) == 1
    until(lambda: not model_servers(data_dir), "every model server has ended")
