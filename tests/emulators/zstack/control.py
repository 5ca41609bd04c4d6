"""The REST API over HTTP: queries answer at once, changes answer 202 and become jobs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.emulators.zstack import query
from tests.emulators.zstack.account import Account, Group, Job, new_job_id
from tests.emulators.zstack.identity import check_credentials, check_login, invalid_session
from tests.emulators.zstack.refusal import Plain, Refusal

_V1 = "/zstack/v1"
_PRINTED_ADDRESS = "http://172.20.0.1:8080"
"""Where the server believes to be; nobody else can reach it there."""
_SERVICES = _V1 + "/ai/model-services"
_GROUPS = _SERVICES + "/instances/groups"
_Rows = Callable[[Request], list[dict[str, Any]]]
_Change = Callable[[Request, dict[str, Any]], dict[str, Any] | Refusal]


class Control:
    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[Route]:
        changed = _V1 + "/model-service-instance-groups"
        machine = _V1 + "/vm-instances/{uuid}"
        return [
            Route(_V1 + "/accounts/login", self.login, methods=["PUT"]),
            Route(_V1 + "/accounts/sessions/{uuid}", self.logout, methods=["DELETE"]),
            Route(_V1 + "/api-jobs/{uuid}", self.job, methods=["GET", "PUT", "POST", "DELETE"]),
            Route(_GROUPS, self.queried(self.groups), methods=["GET"]),
            Route(_GROUPS + "/", self.queried(self.groups), methods=["GET"]),
            Route(_GROUPS + "/{uuid}", self.queried(self.groups), methods=["GET"]),
            Route(_GROUPS + "/{uuid}", self.changing(None, self.delete), methods=["DELETE"]),
            Route(_SERVICES, self.queried(lambda _: self.account.services), methods=["GET"]),
            Route(_SERVICES + "/{uuid}", self.queried(lambda _: self.account.services), methods=["GET"]),
            Route(_SERVICES + "/{uuid}", self.changing("deployModelService", self.deploy), methods=["PUT"]),
            Route(_V1 + "/ai/models", self.queried(lambda _: self.account.models), methods=["GET"]),
            Route(_V1 + "/ai/models/{uuid}", self.queried(lambda _: self.account.models), methods=["GET"]),
            Route(changed, self.changing("restartModelServiceGroups", self.restart), methods=["PUT"]),
            Route(changed + "/{uuid}", self.changing("updateModelServiceInstanceGroup", self.update), methods=["PUT"]),
            Route(machine, self.queried(self.machines), methods=["GET"]),
            Route(machine + "/actions", self.changing("expungeVmInstance", self.expunge), methods=["PUT"]),
            Route("/{path:path}", self.nothing, methods=["GET", "PUT", "POST", "DELETE"]),
        ]

    # Sessions and jobs

    async def login(self, request: Request) -> Response:
        try:
            check_login(self.account, _action(await request.body(), "logInByAccount"))
            return JSONResponse({"inventory": self.account.login()})
        except (Refusal, Plain) as refused:
            return refused.response()

    async def logout(self, request: Request) -> Response:
        self.account.sessions.pop(request.path_params["uuid"], None)
        return JSONResponse({})

    async def job(self, request: Request) -> Response:
        """Nobody is asked who they are: an id of a job is hard enough to guess for the platform."""
        if request.method != "GET":
            return PlainTextResponse("only GET method is allowed for querying job status", 405)
        held = self.account.job(request.path_params["uuid"])
        if held is None:
            return PlainTextResponse("the job has been expired", 404)
        if self.account.clock() < held.ends_at:
            return JSONResponse({}, 202)
        return held.error.response() if held.error else JSONResponse(held.result)

    async def nothing(self, request: Request) -> Response:
        return PlainTextResponse(f"no api mapping to {request.url.path}", 404)

    # What exists

    def groups(self, request: Request) -> list[dict[str, Any]]:
        return [self._shown(request, one) for one in self.account.living()]

    def machines(self, request: Request) -> list[dict[str, Any]]:
        states = {one.machine: self.account.machine_state(one.machine) for one in self.account.groups}
        return [{"uuid": name, "state": state, "name": "vm"} for name, state in states.items() if state]

    # Changes: what the job comes to

    def deploy(self, request: Request, body: dict[str, Any]) -> dict[str, Any] | Refusal:
        made = self.account.deploy(request.path_params["uuid"], body)
        return made if isinstance(made, Refusal) else {"inventory": self._shown(request, made)}

    def update(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        group = self.account.get(request.path_params["uuid"])
        group.options |= body
        return {"inventory": self._shown(request, group)}

    def restart(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        results = []
        for group in body.get("uuids", []):
            try:
                self.account.restart(group)
                results.append({"uuid": group, "success": True})
            except Refusal as refused:
                results.append({"uuid": group, "success": False, "error": refused.error()})
        return {"results": results}

    def delete(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        if request.query_params.get("deleteMode", "Permissive") not in {"Permissive", "Enforcing"}:
            raise Refusal("SYS.1007", "valid values of field[deleteMode] are [Permissive, Enforcing]")
        self.account.delete(request.path_params["uuid"])
        return {}

    def expunge(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        self.account.expunge(request.path_params["uuid"])
        return {}

    # Around all of them

    def queried(self, rows: _Rows) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                if not check_credentials(self.account, request):
                    raise invalid_session()
                shown, cap = rows(request), self.account.switches.page_cap
                if "uuid" in request.path_params:
                    shown = [one for one in shown if one.get("uuid") == request.path_params["uuid"]]
                    return JSONResponse(query.answer(shown, b"", cap=cap))
                return JSONResponse(query.answer(shown, request.scope["query_string"], cap=cap))
            except (Refusal, Plain) as refused:
                return refused.response()

        return answer

    def changing(self, action: str | None, change: _Change) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                known = check_credentials(self.account, request)
                if not known and self.account.switches.sessions_checked == "at_once":
                    raise invalid_session()
                body = _action(await request.body(), action) if action else {}
                job_id = self._job_id(request)
            except (Refusal, Plain) as refused:
                return refused.response()
            self.account.jobs[job_id] = self._run(request, body, change, known=known)
            location = f"{_PRINTED_ADDRESS}{_V1}/api-jobs/{job_id}"
            return JSONResponse({"location": location, "apiTimeout": 1_800_000}, 202)

        return answer

    def _run(self, request: Request, body: dict[str, Any], change: _Change, *, known: bool) -> Job:
        """A message that is refused before it begins ends at once."""
        now = self.account.clock()
        if not known:
            return Job(now, error=invalid_session())
        try:
            result = change(request, body)
        except Refusal as refused:
            return Job(now, error=refused)
        ends_at = now + self.account.delays.job
        return Job(ends_at, error=result) if isinstance(result, Refusal) else Job(ends_at, result)

    def _job_id(self, request: Request) -> str:
        chosen = request.headers.get("x-job-uuid")
        if chosen is None or not self.account.switches.job_ids:
            return new_job_id()
        if len(chosen) != 32:
            raise Plain(400, "Invalid header[X-Job-UUID], it must be a UUID with '-' stripped")
        if self.account.job(chosen) is not None:
            raise Plain(400, f"Duplicate job uuid[{chosen}]")
        return chosen

    def _shown(self, request: Request, group: Group) -> dict[str, Any]:
        account, switches = self.account, self.account.switches
        shown: dict[str, Any] = {
            "uuid": group.uuid,
            "name": group.options.get("name", group.body["name"]),
            "status": account.shown_status(group),
            "__userTag__": group.body.get("userTags", []),
        }
        if switches.bare:
            return {**shown, "instances": [{"url": f"http://{request.headers['host']}/svc/{group.uuid}"}]}
        extra = {"brandNew": {"nested": [None]}, "accessToken": "tok-secret"} if switches.extra_fields else {}
        return {
            **shown,
            "modelServiceUuid": group.service_uuid,
            "modelUuid": group.body.get("modelUuid"),
            "description": group.options.get("description", group.body.get("description")),
            "type": group.body["type"],
            "modelServiceType": "Endpoint",
            "yaml": "env:\n  - name: HF_TOKEN\n    value: hf_FAKEFAKEFAKE\n",
            "supportMetrics": [],
            "createDate": account.date(group.made_at),
            "lastOpDate": account.date(group.made_at),
            "instances": [self._instance(request, group, rank) for rank in range(switches.nodes)],
            **extra,
        }

    def _instance(self, request: Request, group: Group, rank: int) -> dict[str, Any]:
        running = group.status(self.account.clock()) == "Running"
        machine = {"cpuNum": group.body.get("cpuNum", 4), "memorySize": group.body.get("memorySize", 2**30)}
        place = f"{request.headers['host']}/svc/{group.uuid}"
        url = f"http://{place}" if rank == 0 else "http://192.0.2.1:3000"
        addresses: dict[str, dict[str, Any]] = {
            "url": {"url": url, "internalUrl": "http://10.0.0.1:3000"},
            "urlMaps": {"urlMaps": {"service": url}},
            "internalUrl": {"internalUrl": url},
            "bare": {"url": place + "/"},
            "none": {},
        }
        return {
            "uuid": f"{group.uuid[:31]}{rank}",
            "name": f"{group.body['name']}-{rank}",
            "status": "Running" if running else "Starting",
            "nodeRank": rank,
            "vmInstanceUuid": group.machine,
            "vm": {"uuid": group.machine, "consolePassword": "vnc-FAKE", **machine},
            **addresses[self.account.switches.address],
        }


def _action(body: bytes, name: str) -> dict[str, Any]:
    """The object under the action's name; tags beside it are the message's own."""
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict) or not isinstance(value.get(name), dict):
        raise Plain(400, "the body doesn't contain action mapping to the URL")
    beside = {tags: value[tags] for tags in ("systemTags", "userTags") if tags in value}
    return {**value[name], **beside}
