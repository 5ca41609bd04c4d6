"""SIGTERM under load: not ready at once, what is open goes on, what takes too long is told, and then an orderly end."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.journeys.conftest import connect, deploy, make_tenant
from tests.support.gateway import Gateway, running, until
from tests.support.scripted_model import DONE, MODEL, Plan, Talk, scripted_model

ENV = {"MODELPORT_ALLOW_PRIVATE_UPSTREAMS": "true", "MODELPORT_DRAIN_TIMEOUT_SECONDS": "10"}
GUARD_SECONDS = 60.0


class Listener:
    """Reads one stream in a thread of its own, from whichever worker is up and knows the deployment."""

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
        end = time.monotonic() + GUARD_SECONDS
        while not self.heard.is_set() and time.monotonic() < end:
            with httpx.stream("POST", self._url, timeout=GUARD_SECONDS, trust_env=False, **self._request) as answer:
                for line in filter(None, answer.iter_lines() if answer.status_code == 200 else ()):
                    self.lines.append(line)
                    self.heard.set()
            time.sleep(0.05)


def answers(gateway: Gateway, key: str) -> bool:
    """On a connection of its own, which any of the workers may get."""
    body = {"model": "bot", "messages": [{"role": "user", "content": "Say hello."}]}
    headers = {"authorization": f"Bearer {key}"}
    url = f"{gateway.url}/v1/chat/completions"
    return httpx.post(url, json=body, headers=headers, trust_env=False, timeout=GUARD_SECONDS).status_code == 200


def left_alone(gateway: Gateway) -> bool:
    """It says that it is not ready; or it has said so for a second, and does not listen any more."""
    try:
        return gateway.client.get("/readyz").status_code == 503
    except httpx.TransportError:
        return True


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
        until(lambda: gateway.client.get("/readyz").status_code == 200, "every worker is ready")

        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: left_alone(gateway), "it is not ready any more")

        for listener in ending:
            listener.plan.over.set()
            assert listener.all_heard()[-1] == DONE.strip()
        for listener in endless:
            error = json.loads(listener.all_heard()[-1].removeprefix("data: "))["error"]
            assert error["code"] == "unavailable"
        assert gateway.process.wait(GUARD_SECONDS) == 0
