"""An instance and the engine in it: `/svc/{group}/v1/…`, OpenAI's endpoints.

While the group does not run there is a 503 with no body, as of a proxy with nothing behind it. Answers of the
engine are canned, or come from a real server when one is given: then only the model's name differs.
"""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.emulators import canned
from tests.emulators.forward import forwarded
from tests.emulators.zstack.account import Account, Group


class Service:
    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[Route]:
        base = "/svc/{uuid}/v1"
        return [
            Route(base + "/models", self.models, methods=["GET"]),
            Route(base + "/chat/completions", self.chat, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:
        group = self._admitted(request)
        if isinstance(group, Response):
            return group
        if not self.account.switches.lists:
            return JSONResponse({"detail": "Not Found"}, 404)
        own = {"id": group.served, "object": "model", "owned_by": "vllm", "parent": None}
        adapters = [{"id": one, "object": "model", "parent": own["id"]} for one in self.account.switches.adapters]
        return JSONResponse({"object": "list", "data": [own, *adapters]})

    async def chat(self, request: Request) -> Response:
        group = self._admitted(request)
        if isinstance(group, Response):
            return group
        body = json.loads(await request.body())
        if body.get("model") not in {group.served, *self.account.switches.adapters}:
            return _error(404, f"The model `{body.get('model')}` does not exist.")
        if self.account.forward:
            return await forwarded(self.account.forward, body) or _error(502, "The engine does not answer.")
        return canned.chat(body)

    def _admitted(self, request: Request) -> Group | Response:
        """The group whose instance is called, or what comes in its place."""
        found = [one for one in self.account.groups if one.uuid == request.path_params["uuid"]]
        now = self.account.clock()
        if not found or not found[0].there(now) or found[0].status(now) != "Running":
            return Response(status_code=503)
        if self.account.switches.engine is not None:
            return Response(status_code=self.account.switches.engine)
        key = found[0].body.get("environmentVariables", {}).get("VLLM_API_KEY")
        if key and request.headers.get("authorization") != f"Bearer {key}":
            return _error(401, "Unauthorized")
        return found[0]


def _error(status: int, message: str) -> Response:
    return JSONResponse({"object": "error", "message": message, "type": "NotFoundError", "code": status}, status)
