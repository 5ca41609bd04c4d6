"""`make sandbox` as a new user has it: four platforms, one life on each, and nothing is billed at the end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.emulators.sandbox.platforms import EXAMPLES, PACKAGES
from tests.support.gateway import free_port, until

pytestmark = [pytest.mark.demo, pytest.mark.timeout(300)]

_READY_SECONDS = 120
_SCALES: dict[str, dict[str, Any]] = {
    "bailian": {"units": 8},
    "alayanew": {"min_replicas": 1, "max_replicas": 3},
    "pai": {"replicas": 2},
}
_STOPS = {"alayanew": False, "pai": True}
"""Platforms that can stop a deployment, and whether they can start it again."""


@dataclass
class Sandbox:
    """A running one; `output` grows."""

    process: subprocess.Popen[str]
    url: str
    data_dir: Path
    output: list[str] = field(default_factory=list)
    client: httpx.Client = field(default_factory=httpx.Client)

    def read(self) -> None:
        assert self.process.stdout is not None
        self.output.extend(self.process.stdout)

    def text(self) -> str:
        return "".join(self.output)

    def wait_introduced(self) -> None:
        def introduced() -> bool:
            assert self.process.poll() is None, self.text()
            return "Ctrl-C stops everything." in self.text()

        until(introduced, "the sandbox is up", seconds=_READY_SECONDS, context=self.text)
        key = self.keys()["tenant_key"]
        self.client.close()
        self.client = httpx.Client(
            base_url=f"{self.url}/api/v1", headers={"authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        )

    def keys(self) -> dict[str, str]:
        kept: dict[str, str] = json.loads((self.data_dir / "bootstrap.json").read_text())
        return kept

    def desk(self, kind: str) -> str:
        """The address of one platform's emulator, as printed."""
        return re.findall(rf"emulated {kind} on (\S+)", self.text())[-1]

    def ledger(self, kind: str) -> dict[str, Any]:
        shown: dict[str, Any] = httpx.get(f"{self.desk(kind)}/_ledger", trust_env=False, timeout=30).json()
        return shown

    def gateway_pid(self) -> int:
        """Of the child that serves."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def deployments(self) -> dict[str, dict[str, Any]]:
        found = self.client.get("/deployments?page_size=100").json()["data"]
        return {one["connection"]: one for one in found}

    def wait(self, status: str, *kinds: str) -> None:
        def reached() -> bool:
            try:
                shown = self.deployments()
            except (httpx.TransportError, KeyError):  # killed, or not up again yet
                return False
            return all(shown[kind]["status"] == status and not self.busy(shown[kind]) for kind in kinds)

        until(reached, f"{kinds} are {status}", seconds=90, context=self.shown)

    def busy(self, deployment: dict[str, Any]) -> bool:
        operation = self.client.get(f"/operations/{deployment['operation_id']}").json()
        return operation["status"] in {"pending", "running"}

    def shown(self) -> str:
        found = self.deployments().values()
        lines = [f"{one['name']} {one['status']} {one['status_reason']} {one['provider_status']}" for one in found]
        return "\n".join([*lines, self.text()])

    def ask(self, kind: str, verb: str, body: dict[str, Any]) -> None:
        answer = self.client.post(f"/deployments/{self.deployments()[kind]['id']}/{verb}", json=body)
        assert answer.status_code == 202, answer.text


@contextmanager
def running_sandbox(data_dir: Path, port: int) -> Iterator[Sandbox]:
    program = [sys.executable, "-m", "tests.emulators.sandbox", "--port", str(port), "--data-dir", str(data_dir)]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(program, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    sandbox = Sandbox(process, f"http://127.0.0.1:{port}", data_dir)
    reader = threading.Thread(target=sandbox.read, daemon=True)
    reader.start()
    try:
        sandbox.wait_introduced()
        yield sandbox
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
        reader.join(timeout=10)
        sandbox.client.close()
        assert process.stdout is not None
        process.stdout.close()
    assert code == 0, sandbox.text()


@pytest.mark.long
def test_a_new_user_goes_through_a_life_on_every_platform(tmp_path: Path) -> None:
    """The second start is on other ports: the emulators move, and connections and deployments follow."""
    data_dir = tmp_path / "sandbox"
    with running_sandbox(data_dir, free_port()) as sandbox:
        assert sandbox.keys()["admin_key"] in sandbox.text()
        assert sandbox.keys()["tenant_key"] in sandbox.text()
        _browse(sandbox)
        _deploy(sandbox)
        sandbox.wait("running", *PACKAGES)
        _chat(sandbox)
        _change(sandbox)
    with running_sandbox(data_dir, free_port()) as again:
        assert again.keys()["tenant_key"] not in again.text()
        again.wait("running", "bailian", "zstack", "pai")
        _wait_answers(again, "bailian", "zstack", "pai")
        _chat(again, "bailian", "zstack", "pai")
        _delete(again)
        for kind in PACKAGES:
            shown = again.ledger(kind)
            assert shown["still_billed"] == []
            assert len({entry["resource"] for entry in shown["entries"]}) == 1, shown


def _browse(sandbox: Sandbox) -> None:
    """What the examples deploy is what the catalog shows, once it has been read the first time."""

    def offered() -> bool:
        page = sandbox.client.get("/catalog/models", params={"q": "qwen3-8b", "page_size": 100}).json()
        assert page["errors"] == []
        found = {(one["connection"], one["model"]) for one in page["data"]}
        return {(kind, example["model"]) for kind, example in EXAMPLES.items()} <= found

    until(offered, "the catalog shows all four platforms", seconds=60, context=sandbox.text)


def _deploy(sandbox: Sandbox) -> None:
    for kind, example in EXAMPLES.items():
        answer = sandbox.client.post("/deployments", json={"name": f"on-{kind}", "connection": kind, **example})
        assert answer.status_code == 201, answer.text


def _chat(sandbox: Sandbox, *kinds: str) -> None:
    """Through each, whole and streamed; what a real model says differs from what an emulator would."""
    question: Any = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16}
    with openai.OpenAI(base_url=f"{sandbox.url}/v1", api_key=sandbox.keys()["tenant_key"], max_retries=5) as client:
        for kind in kinds or PACKAGES:
            whole = client.chat.completions.create(model=f"on-{kind}", **question)
            assert "emulated" not in (whole.choices[0].message.content or "emulated")
            assert whole.model == f"on-{kind}"
            assert whole.usage is not None
            assert whole.usage.completion_tokens > 0
            stream = client.chat.completions.create(model=f"on-{kind}", stream=True, **question)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def _wait_answers(sandbox: Sandbox, *kinds: str) -> None:
    """Until the reconciler has seen where the emulators are now; `running` they were all the time."""
    url = f"{sandbox.url}/v1/chat/completions"
    headers = {"authorization": f"Bearer {sandbox.keys()['tenant_key']}"}

    def answers(kind: str) -> bool:
        body = {"model": f"on-{kind}", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 1}
        asked = httpx.post(url, json=body, headers=headers, trust_env=False, timeout=30)
        return asked.status_code == 200

    until(lambda: all(answers(kind) for kind in kinds), "all answer again", seconds=60, context=sandbox.shown)


def _change(sandbox: Sandbox) -> None:
    """Scale, stop and start where the platform can, with the gateway killed in between."""
    for kind, capacity in _SCALES.items():
        sandbox.ask(kind, "scale", {"capacity": capacity})
    os.kill(sandbox.gateway_pid(), signal.SIGKILL)
    sandbox.wait("running", *_SCALES)
    shown = sandbox.deployments()
    assert shown["bailian"]["ready_capacity"] == {"units": 8}
    assert shown["pai"]["ready_capacity"] == {"replicas": 2}
    for kind in _STOPS:
        sandbox.ask(kind, "stop", {})
    sandbox.wait("stopped", *_STOPS)
    for kind in (kind for kind, starts in _STOPS.items() if starts):
        sandbox.ask(kind, "start", {})
        sandbox.wait("running", kind)


def _delete(sandbox: Sandbox) -> None:
    shown = sandbox.deployments()
    for kind in PACKAGES:
        assert sandbox.client.delete(f"/deployments/{shown[kind]['id']}").status_code == 202
    until(lambda: not PACKAGES.keys() & sandbox.deployments().keys(), "all are gone", seconds=90, context=sandbox.shown)
