"""Clients of node: one process for the sessions of a family, told step by step what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.sessions.session import MAX_TOKENS, QUESTION, TOOL, WEATHER, Door, Refused, Reply

SCRIPTS = Path(__file__).parent.parent / "journeys" / "node"


def _installed() -> bool:
    """Whether node and every package of the scripts are there: those of an older checkout may be fewer."""
    wanted = json.loads((SCRIPTS / "package.json").read_text())["dependencies"]
    return shutil.which("node") is not None and all((SCRIPTS / "node_modules" / name).is_dir() for name in wanted)


needs_node = pytest.mark.skipif(
    not _installed(),
    reason="needs node and `npm ci` in tests/journeys/node (`.ci/run` does it)",
)


class NodeClient:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def chat(self, door: Door, model: str, prompt: str) -> Reply:
        return Reply(*self._do("chat", door, model, prompt=prompt))

    def stream(self, door: Door, model: str, prompt: str) -> Reply:
        return Reply(*self._do("stream", door, model, prompt=prompt))

    def use_tool(self, door: Door, model: str, *, stream: bool) -> str:
        tool = {**TOOL, "result": WEATHER}
        return str(self._do("tool", door, model, prompt=QUESTION, stream=stream, tool=tool))

    def embed(self, door: Door, model: str, text: str) -> Sequence[float]:
        vector: list[float] = self._do("embed", door, model, text=text)
        return vector

    def leave(self, door: Door, model: str, prompt: str, left: Callable[[], None]) -> None:
        assert self._do("leave", door, model, prompt=prompt) is True
        left()

    def _do(self, step: str, door: Door, model: str, **more: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        given = {"url": door.url, "key": door.key, "retries": door.retries, "model": model, "limit": MAX_TOKENS}
        self._process.stdin.write(json.dumps({"step": step, **given, **more}) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        if refused := said.get("refused"):
            raise Refused(refused["kind"], refused["status"], refused["code"])
        return said["answer"]


@contextmanager
def node_client(script: str) -> Iterator[NodeClient]:
    with subprocess.Popen(
        ["node", str(SCRIPTS / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield NodeClient(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=30) == 0
