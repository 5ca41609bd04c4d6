"""What is measured: a gateway that runs, how it is called, and which processes count as it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.machine import Group

SERVED_MODEL = "upstream-model"
ANSWER = "answer.json"
_TOTAL_TOKENS = 370  # what the mock says
_SYSTEM = "You are a careful assistant of an engineering team. Answer in short sentences and name your sources. "
_QUESTION = (
    "Our service reads events from a queue and writes them to a relational database. Under load the consumers fall "
    "behind and the connection pool runs dry. Which measurements would you take first, and why those? "
)
_USUAL_BYTES = 1500
_STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
_BODIES: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (_USUAL_BYTES, {"max_tokens": 256}),
    "plain_100k": (100_000, {"max_tokens": 256}),
    "plain_5m": (5_000_000, {"max_tokens": 256}),
    "slow": (_USUAL_BYTES, {"max_tokens": 256, "seed": 2_000}),
    "stream": (_USUAL_BYTES, {"max_tokens": 200, **_STREAM}),
    "live": (_USUAL_BYTES, {"max_tokens": 500, "seed": 20, **_STREAM}),
    "first": (_USUAL_BYTES, {"max_tokens": 20, "seed": 5, **_STREAM}),
    "held": (_USUAL_BYTES, {"max_tokens": 2, "seed": 600_000, **_STREAM}),
}


class WrongAnswer(Exception):
    """Found before anything was measured; `str()` shows it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A way into a running gateway. `bodies` holds the requests for `model` and the answer expected to "plain"."""

    name: str
    port: int
    api_key: str
    model: str
    gateway: Group
    beside: Group
    bodies: Path

    def options(self, body: str) -> list[str]:
        return ["-p", str(self.port), "-k", self.api_key, "-b", str(self.bodies / f"{body}.json")]

    def plain_options(self, body: str = "plain") -> list[str]:
        """With every answer compared byte for byte."""
        return [*self.options(body), "-a", str(self.bodies / ANSWER)]

    def write_bodies(self) -> None:
        self.bodies.mkdir(parents=True, exist_ok=True)
        for name, (size_bytes, members) in _BODIES.items():
            (self.bodies / f"{name}.json").write_text(_body(self.model, size_bytes, members))

    def keep_answer(self) -> None:
        """Ask once, look at the answer closely, and keep it as what every answer must be."""
        answer = self.ask()
        found = answer.json()
        if answer.status_code != 200 or found["model"] != self.model or found["usage"]["total_tokens"] != _TOTAL_TOKENS:
            raise WrongAnswer(f"{self.name}: a wrong answer before anything was measured: {answer.text[:500]}")
        (self.bodies / ANSWER).write_bytes(answer.content)

    def ask(self) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            content=(self.bodies / "plain.json").read_bytes(),
            headers={"authorization": f"Bearer {self.api_key}", "content-type": "application/json"},
            timeout=30,
            trust_env=False,
        )


def _body(model: str, size_bytes: int, members: dict[str, Any]) -> str:
    """A chat of at least that size, ending with the members that ask the mock for its answer."""
    messages = [{"role": "system", "content": _SYSTEM * 2}, {"role": "user", "content": _QUESTION}]
    turn = [{"role": "assistant", "content": "The wait for a connection."}, {"role": "user", "content": _QUESTION}]
    missing = size_bytes - len(json.dumps(messages))
    messages += turn * max(1, missing // len(json.dumps(turn)) + 1)
    body = {"model": model, "messages": messages, "temperature": 0.7, "top_p": 0.95, **members}
    return json.dumps(body, separators=(",", ":"))
