"""The control plane of the emulator: the key pair, envelopes, details and pages around an `Account`."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.emulators.alayanew.account import Account, Held
from tests.emulators.alayanew.rules import Refusal

Handler = Callable[[Request], Awaitable[Response]]
_KEY_PAIR = re.compile(r"plain Credential=(?P<access>[^,\s]+),Signature=(?P<secret>\S+)")
_BASE = "/api/serverless-infer/v1/deployment"


class Control:
    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[Route]:
        one, guarded = _BASE + "/{id:str}", self.guarded
        return [
            Route(_BASE + "/list", guarded(self.services), methods=["GET"]),
            Route(_BASE, guarded(self.creates("quickStart")), methods=["POST"]),
            Route(_BASE + "/expert", guarded(self.creates("expert")), methods=["POST"]),
            Route(_BASE + "/lora", guarded(self.creates("lora")), methods=["POST"]),
            Route(_BASE + "/expert/{id:str}", guarded(self.updates("expert")), methods=["PUT"]),
            Route(_BASE + "/lora/{id:str}", guarded(self.updates("lora")), methods=["PUT"]),
            Route(one, guarded(self.updates("quickStart")), methods=["PUT"]),
            Route(one, guarded(self.detail), methods=["GET"]),
            Route(one, guarded(self.delete), methods=["DELETE"]),
            Route(one + "/scale", guarded(self.scale), methods=["PUT"]),
            Route(one + "/cancel", guarded(self.cancel), methods=["POST"]),
            Route(one + "/resource/metrics", guarded(self.resource_metrics), methods=["GET"]),
            Route(one + "/service/metrics", guarded(self.service_metrics), methods=["GET"]),
            Route("/api/model/v1/list", guarded(self.models), methods=["GET"]),
            Route("/api/model/v1/{id:str}", guarded(self.model), methods=["GET"]),
            Route("/api/aidc/v1/list", guarded(self.data_centres), methods=["GET"]),
        ]

    def guarded(self, handler: Handler) -> Handler:
        """The handler behind the key pair's check, its refusals as the platform tells them."""

        async def handle(request: Request) -> Response:
            try:
                self._authorise(request)
                return await handler(request)
            except Refusal as refusal:
                as_http = self.account.switches.errors_as_http or refusal.status in {401, 403}
                code = "-1" if self.account.switches.codes_as_text else -1
                body = {"code": code, "data": None, "msg": refusal.message}
                return JSONResponse(body, refusal.status if as_http else 200)

        return handle

    def creates(self, mode: str) -> Handler:
        async def create(request: Request) -> Response:
            held = self.account.create(mode, await read_body(request))
            names_id = mode != "lora" and self.account.switches.create_names_id
            return self._answer({"serviceId": held.id} if names_id else {})

        return create

    def updates(self, mode: str) -> Handler:
        async def update(request: Request) -> Response:
            self.account.update(mode, request.path_params["id"], await read_body(request))
            return self._answer({})

        return update

    async def scale(self, request: Request) -> Response:
        self.account.scale(request.path_params["id"], await read_body(request))
        return self._answer({})

    async def cancel(self, request: Request) -> Response:
        self.account.cancel(request.path_params["id"])
        return self._answer({})

    async def delete(self, request: Request) -> Response:
        self.account.delete(request.path_params["id"])
        return self._answer({})

    async def detail(self, request: Request) -> Response:
        """A LoRA service's is shown without the envelope."""
        try:
            held = self.account.get(request.path_params["id"])
        except Refusal:
            if self.account.switches.unknown_as_null:
                return self._answer(None)
            raise
        shown = self._detail(request, held)
        return JSONResponse(shown) if held.mode == "lora" else self._answer(shown)

    async def services(self, request: Request) -> Response:
        query, held = request.query_params, self.account.listed()
        for name in ("vksId", "namespace", "modelId"):
            held = [one for one in held if name not in query or one.body.get(name) == query[name]]
        if "model" in query:
            held = [one for one in held if one.mode.lower() == query["model"].lower()]
        if "status" in query:
            held = [one for one in held if one.status(self.account.clock()) == query["status"]]
        if "name" in query:
            held = [one for one in held if self._matches(self.account.shown_name(one), query["name"])]
        return self._page(request, [self._row(request, one) for one in held])

    async def resource_metrics(self, request: Request) -> Response:
        self.account.get(request.path_params["id"])
        return self._answer({})

    async def service_metrics(self, request: Request) -> Response:
        held = self.account.get(request.path_params["id"])
        return self._answer({"success": held.calls, "failed": 0, "rps": 0})

    async def models(self, request: Request) -> Response:
        query = request.query_params
        if "aidcId" not in query:
            raise Refusal("param aidcId is required")
        found = [one for one in self.account.models if str(one["aidcId"]) == query["aidcId"]]
        if "modelType" in query:
            found = [one for one in found if one["modelType"] == query["modelType"]]
        if "modelName" in query:
            found = [one for one in found if query["modelName"] in one["modelMeta"]["name"]]
        return self._page(request, found)

    async def model(self, request: Request) -> Response:
        found = next((one for one in self.account.models if one["id"] == request.path_params["id"]), None)
        if found is None:
            raise Refusal("model not found", 404)
        return self._answer(found)

    async def data_centres(self, request: Request) -> Response:
        return self._page(request, self.account.data_centres)

    def _authorise(self, request: Request) -> None:
        """The pair travels in clear: it is compared, nothing is computed."""
        given = _KEY_PAIR.fullmatch(request.headers.get("authorization", ""))
        if given is None or given["access"] != self.account.access_key or given["secret"] != self.account.secret_key:
            raise Refusal(f"authentication failed for {given['access'] if given else 'nobody'}", 401)

    def _matches(self, name: str, wanted: str) -> bool:
        kind = self.account.switches.name_filter
        return kind != "broken" and (name == wanted if kind == "exact" else wanted in name)

    def _detail(self, request: Request, held: Held) -> dict[str, Any]:
        body, switches = held.body, self.account.switches
        text = switches.served_name_as_text or held.mode == "lora"
        shown = {
            "status": self.account.shown_status(held),
            "name": self.account.shown_name(held),
            "servedName": body["servedName"][0] if text else body["servedName"],
            "modelId": body["modelId"],
            "mode": held.mode,
            **self._address(request, held),
        }
        if switches.bare:
            return shown
        if held.mode == "lora":
            return shown | {"baseServiceId": body["baseServiceId"]}
        extra = {"brandNew": {"nested": [None]}, "accessToken": "tok-secret"} if switches.extra_fields else {}
        placed = {"serviceId": held.id, "vksId": body["vksId"], "namespace": body["namespace"]}
        return shown | placed | {"instance": self._instances(held), held.mode: _described(held)} | extra

    def _row(self, request: Request, held: Held) -> dict[str, Any]:
        body = held.body
        return {
            "serviceId": held.id,
            "status": self.account.shown_status(held),
            "vksId": body.get("vksId", ""),
            "namespace": body.get("namespace", ""),
            "name": self.account.shown_name(held),
            "servedName": body["servedName"][0],
            "modelId": body["modelId"],
            "type": "lora" if held.mode == "lora" else "base",
            **self._address(request, held),
        }

    def _address(self, request: Request, held: Held) -> dict[str, Any]:
        switches, home = self.account.switches, self.account.home_of(held)
        if home is None or (held.mode == "lora" and not switches.lora_address):
            return {}
        place = f"{request.headers['host']}/svc/{home.id}"
        urls = {"whole": f"http://{place}", "slash": f"http://{place}/", "bare": place}
        return {"serviceUrl": urls[switches.url_form], switches.key_name: home.api_key}

    def _instances(self, held: Held) -> list[dict[str, Any]]:
        now = self.account.clock()
        if held.status(now) != "running":
            return []
        count = held.body["scale"]["min"] if held.mode == "expert" else 1
        ready, adapters = held.serves(now), list(self.account.adapters(held))
        return [{"instanceId": str(number), "loraModels": adapters, "baseModelReady": ready} for number in range(count)]

    def _page(self, request: Request, rows: Sequence[dict[str, Any]]) -> Response:
        number, size = int(request.query_params.get("page", 1)), int(request.query_params.get("size", 10))
        if number < 1 or not 1 <= size <= 100:
            raise Refusal("param size must be at most 100")
        size = min(size, self.account.switches.page_cap)
        part = rows[(number - 1) * size : number * size]
        count: int | str = len(part) if self.account.switches.counts_pages else len(rows)
        return self._answer({"count": str(count) if self.account.switches.codes_as_text else count, "rows": list(part)})

    def _answer(self, data: Any) -> Response:
        return JSONResponse({"code": "0" if self.account.switches.codes_as_text else 0, "data": data, "msg": ""})


async def read_body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refusal("invalid request body")
    return body


def _described(held: Held) -> dict[str, Any]:
    """The mode's own object; `backenArgs` is the vendor's spelling."""
    if held.mode == "expert":
        return {name: held.body[name] for name in ("scale", "headConfig", "workerConfig") if name in held.body}
    return {
        "backend": held.body["backend"],
        "backendVersion": held.body["backendVersion"],
        "backenArgs": held.body["backendArgs"],
        "resource": held.body["resource"],
    }
