"""What every answer has, and what the wire may do to us: ids, headers, methods, bodies, defects."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from app.control import deployments
from app.control.body import LIMIT_BYTES
from app.kit.ids import is_id
from tests.control.support import World, deployment_body, error_of

DEPLOYMENTS = "/api/v1/deployments"
JSON = {"content-type": "application/json"}


async def test_every_answer_has_a_request_id_of_ours_and_returns_a_sane_one_of_the_client(world: World) -> None:
    for path in ("/healthz", "/api/v1/me", "/nothing", "/api/v1/nothing", "/docs"):
        answer = await world.admin.get(path, headers={"x-request-id": "trace-1/a:b"})
        assert is_id(answer.headers["x-request-id"], "req"), path
        assert answer.headers["x-client-request-id"] == "trace-1/a:b"
    for insane in ("a" * 129, "a b", "ü", "<script>", ""):
        answer = await world.admin.get("/healthz", headers=[(b"x-request-id", insane.encode())])
        assert "x-client-request-id" not in answer.headers


async def test_answers_under_api_are_never_stored_by_caches(world: World) -> None:
    for client in (world.admin, world.client(None)):
        for path in ("/api/v1/me", "/api/v1/nothing", f"{DEPLOYMENTS}/x"):
            answer = await client.get(path)
            assert (answer.headers["cache-control"], answer.headers["vary"]) == ("no-store", "authorization")
    assert "vary" not in (await world.client(None).get("/healthz")).headers


async def test_an_unknown_path_and_method_have_the_one_error_shape(world: World) -> None:
    error_of(await world.client(None).get("/"), 404, "not_found")
    error_of(await world.admin.get("/api/v1/nothing"), 404, "not_found")
    error_of(await world.admin.get(f"{DEPLOYMENTS}/"), 404, "not_found")
    for method, path, allowed in [
        ("PUT", DEPLOYMENTS, "GET, POST"),
        ("POST", f"{DEPLOYMENTS}/x", "DELETE, GET, PATCH"),
        ("TRACE", f"{DEPLOYMENTS}/x/scale", "POST"),
        ("HEAD", "/api/v1/me", "GET"),
        ("POST", "/healthz", "GET"),
        ("DELETE", "/docs", "GET"),
    ]:
        answer = await world.admin.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        if method != "HEAD":
            error_of(answer, 405, "method_not_allowed")


async def test_a_wrong_query_is_named(world: World) -> None:
    for path, param in [
        (f"{DEPLOYMENTS}?page_size=0", "page_size"),
        (f"{DEPLOYMENTS}?page_size=101", "page_size"),
        (f"{DEPLOYMENTS}?page_size=ten", "page_size"),
        (f"{DEPLOYMENTS}?limit=10", "limit"),
        (f"{DEPLOYMENTS}?status=odd", "status"),
        (f"{DEPLOYMENTS}/dep_00000000000000000000000000?expand=all", "expand"),
        ("/api/v1/me?x=%00", "x"),
    ]:
        error = error_of(await world.admin.get(path), 400)
        assert (error["param"], error["type"]) == (param, "invalid_request_error")


async def test_a_typo_in_validate_only_creates_nothing(writer: httpx.AsyncClient) -> None:
    error_of(await writer.post(f"{DEPLOYMENTS}?validateonly=true", json=deployment_body()), 400, "unknown_parameter")
    assert (await writer.get(DEPLOYMENTS)).json()["data"] == []


async def test_several_wrong_fields_are_all_named(writer: httpx.AsyncClient) -> None:
    body = {"name": "A", "capacity": {"units": -1, "odd": 1}, "labels": {"a": 1}, "extra": 1}
    error = error_of(await writer.post(DEPLOYMENTS, json=body), 400)
    named = {one["param"] for one in error["details"]}
    assert named == {"name", "connection", "model", "capacity.units", "capacity.odd", "labels.a", "extra"}


async def test_thousands_of_wrong_fields_do_not_make_a_huge_answer(writer: httpx.AsyncClient) -> None:
    answer = await writer.post(DEPLOYMENTS, json={f"{'x' * 300}{number}": 1 for number in range(3000)})
    assert len(error_of(answer, 400)["details"]) == 20
    assert len(answer.content) < 20_000


NO_OBJECTS = [
    b"",
    b"   ",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xef\xbb\xbf{}",
    '{"name": "x"}'.encode("utf-16"),
    b'{"name": "\xff"}',
    b'{"name": "\\ud800"}',
    b'{"name": "\\u0000"}',
    b'{"name": NaN}',
    b'{"name": 1e999}',
    b'{"name": ' + b"9" * 5000 + b"}",
    b'{"name": ' + b"[" * 100 + b"]" * 100 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
]


async def test_a_body_that_is_no_json_object_is_400(writer: httpx.AsyncClient) -> None:
    for content in NO_OBJECTS:
        error_of(await writer.post(DEPLOYMENTS, content=content, headers=JSON), 400)


async def test_of_duplicate_names_the_last_one_counts(writer: httpx.AsyncClient) -> None:
    content = b'{"name":"first","connection":"elastic-prod","model":"m","name":"last"}'
    answer = await writer.post(DEPLOYMENTS, content=content, headers=JSON)
    assert answer.json()["name"] == "last"


async def test_only_plain_json_is_taken(writer: httpx.AsyncClient) -> None:
    for headers, status_code in [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/json; charset=utf-16"}, 415),
        ({"content-type": ""}, 415),
        ({**JSON, "content-encoding": "gzip"}, 415),
        ({"content-type": "Application/JSON; charset=UTF-8", "content-encoding": "identity"}, 400),
    ]:
        error_of(await writer.post(DEPLOYMENTS, content=b"{}", headers=headers), status_code)


async def test_a_body_over_the_limit_is_413_before_it_is_read_on(writer: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 64 * LIMIT_BYTES:
            sent += 65_536
            yield b" " * 65_536

    error_of(await writer.post(DEPLOYMENTS, content=endless(), headers=JSON), 413, "body_too_large")
    assert sent <= LIMIT_BYTES + 2 * 65_536
    for length in (str(LIMIT_BYTES + 1), "9" * 5000):
        answer = await writer.post(DEPLOYMENTS, content=b"{}", headers={**JSON, "content-length": length})
        error_of(answer, 413, "body_too_large")


async def test_verbs_without_fields_need_no_body(writer: httpx.AsyncClient) -> None:
    answer = await writer.post(DEPLOYMENTS, json=deployment_body())
    path = f"{answer.headers['location']}/start"
    for content, status_code in [(b"", 409), (b"{}", 409), (b'{"x":1}', 400)]:
        headers = JSON if content else {}
        error_of(await writer.post(path, content=content, headers=headers), status_code)


async def test_a_defect_is_a_500_without_its_text_logged_once_with_the_request_id(
    world: World, writer: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, log_lines: list[dict[str, Any]]
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("postgresql://user:canary-password@host")

    monkeypatch.setattr(deployments.service.deployments, "list_page", broken)
    answer = await writer.get(DEPLOYMENTS)
    error = error_of(answer, 500, "internal_error")
    assert "canary" not in answer.text
    assert error["type"] == "server_error"
    lines = [line for line in log_lines if line["event"] == "request_failed"]
    assert [line["request_id"] for line in lines] == [answer.headers["x-request-id"]]
    assert lines[0]["error_type"] == "RuntimeError"
    assert "canary" not in str(log_lines)


async def test_every_request_leaves_one_line_without_its_query(
    world: World, writer: httpx.AsyncClient, tenant_id: str, log_lines: list[dict[str, Any]]
) -> None:
    log_lines.clear()
    answer = await writer.get(f"{DEPLOYMENTS}?name=canary", headers={"x-request-id": "mine"})
    await world.client(None).get("/healthz")
    (line,) = log_lines
    assert (line["event"], line["method"], line["path"], line["status_code"]) == ("request", "GET", DEPLOYMENTS, 200)
    assert (line["request_id"], line["client_request_id"]) == (answer.headers["x-request-id"], "mine")
    assert line["tenant_id"] == tenant_id
    assert "canary" not in str(line)


async def test_readiness_says_what_is_waited_for_and_whether_the_database_is_there(world: World) -> None:
    answer = await world.client(None).get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "database": "ok", "reason": None})


async def test_providers_describe_what_their_connections_need(writer: httpx.AsyncClient) -> None:
    body = (await writer.get("/api/v1/providers")).json()
    assert body["next_page_token"] is None
    kinds = {one["kind"]: one for one in body["data"]}
    assert kinds.keys() == {"openai_compatible", "local", "elastic"}
    assert "base_url" in kinds["openai_compatible"]["settings_schema"]["properties"]
    assert kinds["elastic"]["capabilities"]["scale"] is True
    assert kinds["elastic"]["capacity_forms"] == ["units", "replicas"]


async def test_locations_stand_under_the_root_path(world: World, writer: httpx.AsyncClient) -> None:
    from dataclasses import replace

    from app.control.app import create_control_app
    from app.settings import WebSettings

    settings = replace(world.context.settings, web=WebSettings(root_path="/models"))
    context = replace(world.context, settings=settings)
    world.app = create_control_app(lambda: context)
    client = world.client(writer.headers["authorization"].removeprefix("Bearer "))
    answer = await client.post(DEPLOYMENTS, json=deployment_body())
    assert answer.headers["location"].startswith("/models/api/v1/deployments/dep_")
