"""The gateway and the engine behind it: `/api/predict/{service}/v1/…`, OpenAI's endpoints behind a token.

The gateway answers 401 for a wrong token, 404 for a service it does not know, 503 with "no healthy
upstream" for one it has no way to. Answers of the engine are canned, or come from a real server when
one is given: then only the model's name differs.
"""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.emulators import canned
from tests.emulators.forward import forwarded
from tests.emulators.pai.account import Account, Held


class Service:
    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[Route]:
        base = "/api/predict/{name}/v1"
        return [
            Route(base + "/models", self.models, methods=["GET"]),
            Route(base + "/chat/completions", self.chat, methods=["POST"]),
            Route("/api/predict/{path:path}", self.elsewhere, methods=["GET", "POST"]),
        ]

    async def models(self, request: Request) -> Response:
        held = self._admitted(request)
        if isinstance(held, Response):
            return held
        if not self.account.switches.lists:
            return Response(status_code=404)
        own = {"id": _served_name(held), "object": "model", "owned_by": "vllm", "parent": None}
        adapters = [{"id": one, "object": "model", "parent": own["id"]} for one in self.account.switches.adapters]
        return JSONResponse({"object": "list", "data": [own, *adapters]})

    async def chat(self, request: Request) -> Response:
        held = self._admitted(request)
        if isinstance(held, Response):
            return held
        body = json.loads(await request.body())
        if body.get("model") not in {_served_name(held), *self.account.switches.adapters}:
            return _error(404, f"The model `{body.get('model')}` does not exist.")
        if self.account.forward:
            return await forwarded(self.account.forward, body) or PlainTextResponse("upstream connect error", 503)
        return canned.chat(body)

    async def elsewhere(self, request: Request) -> Response:
        return Response(status_code=404)

    def _admitted(self, request: Request) -> Held | Response:
        """The service that is called, or what the gateway answers in its place."""
        found = [one for one in self.account.living() if one.name == request.path_params["name"]]
        if not found:
            return Response(status_code=404)
        if not self.account.ready(found[0]):
            return PlainTextResponse("no healthy upstream", 503)
        if self.account.switches.gateway is not None:
            return Response(status_code=self.account.switches.gateway)
        if request.headers.get("authorization", "").removeprefix("Bearer ") != found[0].token:
            return PlainTextResponse("Unauthorized", 401)
        return found[0]


def _served_name(held: Held) -> str:
    """What the container's command says, as vLLM and SGLang take it; else the model's path."""
    words = str(held.config.get("containers", [{}])[0].get("script", "")).split()
    flag = "--served-model-name"
    return words[words.index(flag) + 1] if flag in words[:-1] else "/model"


def _error(status: int, message: str) -> Response:
    return JSONResponse({"object": "error", "message": message, "type": "NotFoundError", "code": status}, status)
