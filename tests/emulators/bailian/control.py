"""`/api/v1/deployments` of the emulator: authorisation, envelopes and pages around an `Account`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.emulators.bailian.account import Account
from tests.emulators.bailian.rules import Refusal

Handler = Callable[[Request], Awaitable[Response]]


class Control:
    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[Route]:
        one = "/api/v1/deployments/{id:str}"
        return [
            Route("/api/v1/deployments/models", self.guarded(self.models), methods=["GET"]),
            Route("/api/v1/deployments", self.guarded(self.create), methods=["POST"]),
            Route("/api/v1/deployments", self.guarded(self.list), methods=["GET"]),
            Route(one, self.guarded(self.get), methods=["GET"]),
            Route(one, self.guarded(self.delete), methods=["DELETE"]),
            Route(one + "/scale", self.guarded(self.scale), methods=["PUT"]),
            Route(one + "/update", self.guarded(self.update), methods=["PUT"]),
            Route(one + "/stream", self.guarded(self.stream), methods=["GET"]),
        ]

    def guarded(self, handler: Handler) -> Handler:
        """The handler behind the key's check, its refusals as the platform's envelope."""

        async def handle(request: Request) -> Response:
            try:
                authorise(self.account, request)
                return await handler(request)
            except Refusal as refusal:
                status = 200 if self.account.switches.errors_in_ok else refusal.status
                body = {"request_id": _request_id(), "code": refusal.code, "message": refusal.message}
                return JSONResponse(body, status)

        return handle

    async def models(self, request: Request) -> Response:
        query = request.query_params
        source = query.get("model_source", "base")
        models = self.account.custom_models if source == "custom" else self.account.base_models
        shown = models if query.get("version") == "v1.0" else [_without_plans(model) for model in models]
        return self._page(request, "models", shown, default_size=50)

    async def create(self, request: Request) -> Response:
        held = self.account.create(await read_body(request))
        return self._answer({**self.account.shown(held), "status": "PENDING", "ready_capacity": 0})

    async def list(self, request: Request) -> Response:
        plan = request.query_params.get("plan")
        shown = [self.account.shown(held) for held in self.account.listed() if plan in {None, held.body.get("plan")}]
        return self._page(request, "deployments", shown, default_size=10)

    async def get(self, request: Request) -> Response:
        shown = self.account.shown(self.account.get(request.path_params["id"]))
        if self.account.switches.get_shape == "flat":
            return self._answer(shown)
        return self._answer({"page_no": 1, "page_size": 10, "total": 1, "deployments": [shown]})

    async def delete(self, request: Request) -> Response:
        held = self.account.delete(request.path_params["id"])
        shown = {"deployed_model": held.id, "status": "DELETING", "model_name": held.model}
        return self._answer(shown | {name: amount for name, amount in held.size.items() if name == "capacity"})

    async def scale(self, request: Request) -> Response:
        return self._answer(self.account.shown(self.account.scale(request.path_params["id"], await read_body(request))))

    async def update(self, request: Request) -> Response:
        return self._answer(self.account.shown(self.account.limit(request.path_params["id"], await read_body(request))))

    async def stream(self, request: Request) -> Response:
        held = self.account.get(request.path_params["id"])
        word = held.status(self.account.clock())
        return StreamingResponse(_events(word), media_type="text/event-stream")

    def _page(self, request: Request, member: str, entries: Sequence[Any], *, default_size: int) -> Response:
        number, size = _count(request, "page_no", 1), _count(request, "page_size", default_size)
        if number < 1 or not 1 <= size <= 100:
            raise Refusal(400, "InvalidParameter", "page_no must be at least 1, page_size between 1 and 100.")
        size = min(size, self.account.switches.page_cap)
        total: int | str = str(len(entries)) if self.account.switches.totals_as_text else len(entries)
        page = entries[(number - 1) * size : number * size]
        return self._answer({"page_no": number, "page_size": size, "total": total, member: page})

    def _answer(self, output: Any) -> Response:
        return JSONResponse({"request_id": _request_id(), self.account.switches.envelope: output})


def authorise(account: Account, request: Request) -> None:
    """The key must be this account's, and the workspace, where one is named, too. Raises Refusal."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if key in account.foreign_keys:
        raise Refusal(403, "AccessDenied", "Access denied: the key belongs to another account.")
    if scheme != "Bearer" or not secrets.compare_digest(key.encode(), account.api_key.encode()):
        raise Refusal(401, "InvalidApiKey", "Invalid API-key provided.")
    if request.headers.get("x-dashscope-workspace", account.workspace_id) != account.workspace_id:
        raise Refusal(403, "Workspace.AccessDenied", "Workspace access denied.")


async def read_body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise Refusal(400, "InvalidParameter", "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "InvalidParameter", "The body is not an object.")
    return body


def _count(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    return int(text) if text.isdigit() else -1


def _without_plans(model: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name != "plans"}


def _events(word: str) -> Iterator[str]:
    for number, status in enumerate(dict.fromkeys(("PENDING", word)), 1):
        yield f"id:{number}\nevent:event\ndata:{json.dumps({'status': status})}\n\n"


def _request_id() -> str:
    return f"emu-{secrets.token_hex(8)}"
