"""The command line's own client: one gateway, one key, JSON in and out, over the standard library."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from app.cli.errors import CommandFailed
from app.kit import json

_TIMEOUT_SECONDS = 600


class Api:
    """Calls one gateway. Every failure is a CommandFailed with the gateway's own sentence."""

    def __init__(self, base_url: str, key: str) -> None:
        try:
            parts = urlsplit(base_url)
            self._host, self._port, self._prefix = parts.hostname or "", parts.port, parts.path.rstrip("/")
        except ValueError as wrong:
            raise CommandFailed(f"{base_url!r} is not an http(s) address: {wrong}", 2) from None
        if parts.scheme not in {"http", "https"} or not self._host:
            raise CommandFailed(f"{base_url!r} is not an http(s) address", 2)
        if not key.isascii() or not key.isprintable():
            raise CommandFailed("the key holds characters that no key has; was it copied whole?", 2)
        self._tls = parts.scheme == "https"
        self._key = key

    def get(self, path: str) -> Any:
        return self._json("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json("POST", path, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json("PATCH", path, body)

    def find(self, path: str, name: str) -> Any:
        """The resource of that name in a list, or None; reads every page."""
        token = ""
        while True:
            page = self.get(f"{path}{'&' if '?' in path else '?'}page_size=100{token}")
            for resource in page["data"]:
                if resource["name"] == name:
                    return resource
            if page["next_page_token"] is None:
                return None
            token = f"&page_token={page['next_page_token']}"

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Any]:
        """What each `data:` line of an event stream holds, as they arrive, up to its `[DONE]`."""
        with self._answered("POST", path, body) as answer:
            for line in answer:
                data = line[5:].strip() if line.startswith(b"data:") else b""
                if data == b"[DONE]":
                    return
                if data:
                    yield json.loads(data)
            raise CommandFailed("the answer broke off before its end")

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        with self._answered(method, path, body) as answer:
            return json.loads(answer.read())

    @contextmanager
    def _answered(self, method: str, path: str, body: Mapping[str, Any] | None) -> Iterator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=_TIMEOUT_SECONDS)
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        try:
            connection.request(method, self._prefix + path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise CommandFailed(_sentence(answer))
            yield answer
        except (OSError, http.client.HTTPException) as failed:
            raise CommandFailed(f"no gateway answers at {self._host}:{self._port} ({failed})") from None
        except ValueError:
            raise CommandFailed(f"what answers at {self._host}:{self._port} is no gateway: this is no JSON") from None
        finally:
            connection.close()


def _sentence(answer: http.client.HTTPResponse) -> str:
    text = answer.read()
    try:
        return f"{json.loads(text)['error']['message']} (HTTP {answer.status})"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status}"
