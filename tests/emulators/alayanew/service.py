"""The data plane of each service: OpenAI's endpoints behind the header `apiKey`.

Answers are canned, or come from a real server when one is given: then only the model's name differs.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.emulators import canned
from tests.emulators.alayanew.account import Account, Held
from tests.emulators.alayanew.control import read_body
from tests.emulators.alayanew.rules import Refusal
from tests.emulators.forward import forwarded


class Service:
    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[Route]:
        base = "/svc/{id:str}/v1"
        return [
            Route(base + "/chat/completions", self.chat, methods=["POST"]),
            Route(base + "/models", self.models, methods=["GET"]),
        ]

    async def chat(self, request: Request) -> Response:
        try:
            held = self._admit(request)
            body = await read_body(request)
            if body.get("model") not in self._names(held):
                raise Refusal(f"The model `{body.get('model')}` does not exist.", 404)
        except Refusal as refusal:
            return _openai_error(refusal)
        held.calls += 1
        if self.account.forward:
            return await forwarded(self.account.forward, body) or _openai_error(Refusal("Bad Gateway", 502))
        return canned.chat(body)

    async def models(self, request: Request) -> Response:
        try:
            names = self._names(self._admit(request))
        except Refusal as refusal:
            return _openai_error(refusal)
        data = [{"id": name, "object": "model", "created": 1, "owned_by": "vllm"} for name in names]
        return JSONResponse({"object": "list", "data": data})

    def _admit(self, request: Request) -> Held:
        """The service that is called, when it serves. Raises Refusal."""
        held = self.account.services.get(request.path_params["id"])
        if held is None:
            raise Refusal("Not Found", 404)
        if request.headers.get("apikey") != held.api_key:
            raise Refusal("Unauthorized", 401)
        if not held.serves(self.account.clock()):
            raise Refusal("Service Unavailable", 503)
        return held

    def _names(self, held: Held) -> list[str]:
        return [*held.body["servedName"], *self.account.adapters(held)]


def _openai_error(refusal: Refusal) -> Response:
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": refusal.message, "type": kind, "code": refusal.status}}, refusal.status)
