"""A real `modelport serve` in a process of its own, and its clients over real sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

ADMIN_KEY = "an-admin-key-for-tests-0123456789abcdef"
Found = TypeVar("Found")


_reserved: list[socket.socket] = []


def free_port() -> int:
    """A port that the kernel gives to nobody else while this process lives: it stays bound, and nobody listens on it.

    Who names it gets it all the same, since both say SO_REUSEADDR, as servers do.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    _reserved.append(probe)
    port: int = probe.getsockname()[1]
    return port


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """This process's environment with our settings only, and none that a developer has set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MODELPORT_")}
    return {
        **clean,
        "MODELPORT_DATA_DIR": str(data_dir),
        "MODELPORT_ADMIN_KEY": ADMIN_KEY,
        "MODELPORT_POLL_INTERVAL_SECONDS": "0.5",
        **{f"MODELPORT_{name.upper()}": value for name, value in more.items()},
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "app.cli", *arguments]


@dataclass
class Gateway:
    """One `modelport serve`; `url` answers once `wait_ready` has returned."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def wait_ready(self) -> None:
        until(self._is_ready, "the gateway is ready", seconds=100, context=self.log_tail)

    def api(self, method: str, path: str, *, key: str = ADMIN_KEY, **more: Any) -> httpx.Response:
        return self.client.request(method, f"/api/v1{path}", headers={"authorization": f"Bearer {key}"}, **more)

    def create(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.api("POST", path, json=body)
        assert answer.status_code < 300, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def deployment(self, deployment_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/deployments/{deployment_id}").json()
        return found

    def wait_status(self, deployment_id: str, status: str, *, seconds: float = 60) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            found = self.deployment(deployment_id)
            return found if found.get("status") == status else None

        return until(reached, f"{deployment_id} is {status}", seconds=seconds, context=self.log_tail)

    def chat(self, key: str, model: str, *, stream: bool = False, max_tokens: int = 8) -> httpx.Response:
        body = {
            "model": model,
            "stream": stream,
            "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": "Say hello."}],
        }
        return self.client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})

    def kill(self) -> None:
        """`kill -9` of the whole process, as the machine's owner would."""
        self.process.send_signal(signal.SIGKILL)
        self.wait_killed()

    def wait_killed(self) -> None:
        """Wait until it has died of SIGKILL, by its own hand or another's."""
        assert self.process.wait(timeout=60) == -signal.SIGKILL
        self.client.close()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=60)
        finally:
            self.client.close()

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"the gateway ended: {self.log_tail()}"
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


def start(data_dir: Path, *, arguments: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> Gateway:
    """Start one and do not wait."""
    port = free_port()
    log = data_dir.with_name(f"{data_dir.name}-{port}.log")
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command("serve", "--port", str(port), "--access-log", str(log.with_suffix(".access")), *arguments),
            env={**environment(data_dir), **(env or {})},
            stdout=sink,
            stderr=sink,
            stdin=subprocess.DEVNULL,
        )
    return Gateway(process, f"http://127.0.0.1:{port}", log)


@contextmanager
def running(
    data_dir: Path, *, arguments: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> Iterator[Gateway]:
    gateway = start(data_dir, arguments=arguments, env=env)
    try:
        gateway.wait_ready()
        yield gateway
    finally:
        gateway.stop()


def until(
    found: Callable[[], Found | None], what: str, *, seconds: float = 30, context: Callable[[], str] = lambda: ""
) -> Found:
    """The first truthy answer of `found`; the limit only guards against hanging."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = found()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}\n{context()}")


def model_servers(data_dir: Path) -> list[int]:
    """Pids of live (not zombie) model servers whose state is below this data directory."""
    processes = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [int(process.name) for process in processes if _is_model_server(process, data_dir)]


def _is_model_server(process: Path, data_dir: Path) -> bool:
    try:
        environ = (process / "environ").read_bytes()
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    marked = b"MODELPORT_DEPLOYMENT=" in environ and str(data_dir).encode() in environ
    return marked and state not in {"Z", "X"}
