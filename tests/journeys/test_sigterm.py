"""SIGTERM under load: not ready at once, what is open goes on, what takes too long is told, and then an orderly end."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import httpx
import pytest

from tests.journeys.conftest import connect, deploy, make_tenant
from tests.support.gateway import Gateway, running, until
from tests.support.scripted_model import DONE, MODEL, Plan, Talk, scripted_model

ENV = {"MODELPORT_ALLOW_PRIVATE_UPSTREAMS": "true", "MODELPORT_DRAIN_TIMEOUT_SECONDS": "2"}
GUARD_SECONDS = 30.0


class Listener:
    """Reads one stream in a thread of its own."""

    def __init__(self, gateway: Gateway, key: str, plan: Plan) -> None:
        self.plan = plan
        self.heard = threading.Event()
        self.lines: list[str] = []
        body = {"model": "bot", "stream": True, "messages": [{"role": "user", "content": plan.cue}]}
        self._request = {"json": body, "headers": {"authorization": f"Bearer {key}"}}
        self._url = f"{gateway.url}/v1/chat/completions"
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def all_heard(self) -> list[str]:
        self._thread.join(GUARD_SECONDS)
        assert not self._thread.is_alive()
        return self.lines

    def _listen(self) -> None:
        with httpx.stream("POST", self._url, timeout=GUARD_SECONDS, trust_env=False, **self._request) as answer:
            for line in filter(None, answer.iter_lines()):
                self.lines.append(line)
                self.heard.set()


def answers(gateway: Gateway, key: str) -> bool:
    """On a connection of its own, which any of the workers may get."""
    body = {"model": "bot", "messages": [{"role": "user", "content": "Say hello."}]}
    headers = {"authorization": f"Bearer {key}"}
    url = f"{gateway.url}/v1/chat/completions"
    return httpx.post(url, json=body, headers=headers, trust_env=False).status_code == 200


@pytest.mark.parametrize("workers", [1, 2])
def test_open_streams_end_properly_and_then_the_gateway_does(data_dir: Path, workers: int) -> None:
    with scripted_model() as model, running(data_dir, arguments=("--workers", str(workers)), env=ENV) as gateway:
        tenant = make_tenant(gateway, "acme")
        deploy(gateway, tenant, "bot", connection=connect(gateway, model), model=MODEL)
        until(lambda: all(answers(gateway, tenant.key) for _ in range(8)), "every worker knows the deployment")
        ending, endless = (
            [Listener(gateway, tenant.key, model.plan(talk)) for _ in range(workers)]
            for talk in (Talk(last=DONE), Talk())
        )
        assert all(listener.heard.wait(GUARD_SECONDS) for listener in [*ending, *endless])
        assert gateway.client.get("/readyz").status_code == 200

        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: gateway.client.get("/readyz").status_code == 503, "it is not ready any more")

        for listener in ending:
            listener.plan.over.set()
            assert listener.all_heard()[-1] == DONE.strip()
        for listener in endless:
            error = json.loads(listener.all_heard()[-1].removeprefix("data: "))["error"]
            assert error["code"] == "unavailable"
        assert gateway.process.wait(GUARD_SECONDS) == 0
