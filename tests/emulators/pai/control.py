"""Both control planes over HTTP: routes, the signature's check, and the shapes of answers."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.emulators.pai import catalog
from tests.emulators.pai.account import Account, Held, check_autoscaler, utc
from tests.emulators.pai.refusal import Refusal
from tests.emulators.pai.signature import verify

_EAS = "2021-07-01"
_HANDLER = Callable[[Request, bytes], Any]


class Control:
    def __init__(self, account: Account) -> None:
        self.account = account

    def routes(self) -> list[Route]:
        services = "/api/v2/services"
        one = services + "/{region}/{name}"
        models = "/api/v2/modelgallery/models"
        spec = "2026-06-03"
        return [
            self._route("/api/v1/modelgallery/models", "GET", "ListModelGalleryModels", "2025-06-30", self.list_models),
            self._route(models, "GET", "ListModelGalleryModels", spec, self.list_models),
            self._route(
                models + "/{id}/deployment-profiles", "GET", "ListModelDeploymentProfiles", spec, self.profiles
            ),
            self._route(
                models + "/{id}/deployment-resources", "GET", "GetModelDeploymentResources", spec, self.resources
            ),
            self._route(models + "/{id}/deployment-spec", "GET", "GetModelDeploymentSpec", spec, self.spec),
            self._route(services, "POST", "CreateService", _EAS, self.create),
            self._route(services, "GET", "ListServices", _EAS, self.list_services),
            self._route(one, "GET", "DescribeService", _EAS, self.describe),
            self._route(one, "PUT", "UpdateService", _EAS, self.update),
            self._route(one, "DELETE", "DeleteService", _EAS, self.delete),
            *(
                self._route(f"{one}/{verb}", "PUT", f"{verb.title()}Service", _EAS, self.change(verb))
                for verb in _VERBS
            ),
            self._route(one + "/endpoints", "GET", "DescribeServiceEndpoints", _EAS, self.endpoints),
            self._route(one + "/events", "GET", "DescribeServiceEvent", _EAS, self.events),
            self._route(one + "/instances", "GET", "ListServiceInstances", _EAS, self.instances),
            self._route(one + "/autoscaler", "GET", "DescribeServiceAutoScaler", _EAS, self.get_autoscaler),
            self._route(one + "/autoscaler", "POST", "CreateServiceAutoScaler", _EAS, self.create_autoscaler),
            self._route(one + "/autoscaler", "PUT", "UpdateServiceAutoScaler", _EAS, self.update_autoscaler),
            self._route(one + "/autoscaler", "DELETE", "DeleteServiceAutoScaler", _EAS, self.delete_autoscaler),
            self._route("/api/v2/regions", "GET", "DescribeRegions", _EAS, self.regions),
        ]

    # ModelGallery

    def list_models(self, request: Request, body: bytes) -> dict[str, Any]:
        query = dict(request.query_params)
        found = catalog.select(self.account.models, query)
        shown: Any = found[catalog.page(query, self.account.switches.gallery_page_cap)]
        if self.account.switches.models_shape == "object":
            shown = shown[0] if shown else None
        return {**self._total(str(len(found))), "Models": shown}

    def profiles(self, request: Request, body: bytes) -> dict[str, Any]:
        model = self._model(request)
        found = catalog.profiles(model) if model["Deployable"] else []
        version = request.query_params["ModelVersion"]
        return {"ModelId": model["ModelId"], "ModelVersion": version, "TotalCount": len(found), "Profiles": found}

    def resources(self, request: Request, body: bytes) -> dict[str, Any]:
        return {"MemberMatches": catalog.resources(self._profile(request))}

    def spec(self, request: Request, body: bytes) -> dict[str, Any]:
        selections = request.query_params.get("ResourceSelections", "")
        return {"InferenceSpec": catalog.inference_spec(self._model(request), self._profile(request), selections)}

    # EAS

    def create(self, request: Request, body: bytes) -> dict[str, Any]:
        labels = json.loads(request.query_params.get("Labels", "{}"))
        held = self.account.create(_object(body), labels)
        shown = self._service(request, held)
        members = ("Region", "ServiceName", "ServiceId", "Status", "InternetEndpoint", "IntranetEndpoint")
        return {name: shown[name] for name in members if name in shown}

    def list_services(self, request: Request, body: bytes) -> dict[str, Any]:
        query = dict(request.query_params)
        label = json.loads(query.get("Label", "{}"))
        found = [
            one
            for one in self.account.living()
            if query.get("Filter", "") in one.name
            and query.get("ServiceName", one.name) == one.name
            and label.items() <= one.labels.items()
            and query.get("ServiceStatus", self._status(one)) == self._status(one)
        ]
        found.sort(key=lambda one: one.made_at, reverse=query.get("Order", "desc") == "desc")
        paged = found[catalog.page({"PageSize": "100", **query}, self.account.switches.services_page_cap)]
        listed = [{**self._service(request, one), **_NOT_LISTED} for one in paged]
        services = [{name: value for name, value in one.items() if value is not None} for one in listed]
        return {"PageNumber": 1, "PageSize": 100, **self._total(len(found)), "Services": services}

    def _total(self, count: int | str) -> dict[str, Any]:
        return {"TotalCount": count} if self.account.switches.tells_totals else {}

    def describe(self, request: Request, body: bytes) -> dict[str, Any]:
        return self._service(request, self._held(request))

    def update(self, request: Request, body: bytes) -> dict[str, Any]:
        held = self._held(request)
        if request.query_params.get("UpdateType", "merge") != "merge":
            raise Refusal(400, "InvalidParameter", "The emulator merges only.")
        self.account.merge(held.name, _object(body))
        return _updating(held)

    def delete(self, request: Request, body: bytes) -> dict[str, Any]:
        held = self._held(request)
        self.account.delete(held.name)
        return _updating(held)

    def change(self, verb: str) -> _HANDLER:
        def changed(request: Request, body: bytes) -> dict[str, Any]:
            held = self._held(request)
            getattr(self.account, verb)(held.name)
            return _updating(held)

        return changed

    def endpoints(self, request: Request, body: bytes) -> dict[str, Any]:
        held = self._held(request)
        url = _address(request, held)
        endpoint = {"EndpointType": "DefaultGateway", "InternetEndpoints": [url], "IntranetEndpoints": [url]}
        return {"AccessToken": held.token, "Endpoints": [endpoint], "Message": "ok"}

    def events(self, request: Request, body: bytes) -> dict[str, Any]:
        held = self._held(request)
        kind = "Warning" if self._status(held) == "Failed" else "Normal"
        event = {"Type": kind, "Reason": "Event", "Message": held.message, "Time": utc(held.made_at)}
        wanted = request.query_params.get("EventType", kind) == kind
        return {
            "Events": [event] if wanted else [],
            "PageNum": 1,
            "TotalCount": int(wanted),
            "TotalPageNum": int(wanted),
        }

    def instances(self, request: Request, body: bytes) -> dict[str, Any]:
        held = self._held(request)
        word = "Running" if self.account.running_instances(held) else "Pending"
        listed = [
            {"InstanceName": f"{held.name}-{number}", "Status": word, "InnerIP": "10.0.0.1", "RestartCount": 0}
            for number in range(held.instances)
        ]
        return {"Instances": listed, "PageNumber": 1, "PageSize": 100, "TotalCount": len(listed)}

    def get_autoscaler(self, request: Request, body: bytes) -> dict[str, Any]:
        held = self._held(request)
        if held.autoscaler is None:
            raise Refusal(404, "AutoScalerNotFound", f"Service [{held.name}] has no autoscaler")
        scaler = held.autoscaler
        return {"ServiceName": held.name, "MinReplica": scaler["min"], "MaxReplica": scaler["max"]}

    def create_autoscaler(self, request: Request, body: bytes) -> dict[str, Any]:
        held = self._held(request)
        if held.autoscaler is not None:
            raise Refusal(400, "AutoScalerExists", f"Service [{held.name}] has an autoscaler")
        return self._set_autoscaler(held, _object(body))

    def update_autoscaler(self, request: Request, body: bytes) -> dict[str, Any]:
        self.get_autoscaler(request, body)
        return self._set_autoscaler(self._held(request), _object(body))

    def delete_autoscaler(self, request: Request, body: bytes) -> dict[str, Any]:
        self.get_autoscaler(request, body)
        held = self._held(request)
        held.autoscaler = None
        return _updating(held)

    def regions(self, request: Request, body: bytes) -> dict[str, Any]:
        return {"Regions": [{"RegionId": self.account.region, "RegionName": self.account.region}]}

    def _set_autoscaler(self, held: Held, body: dict[str, Any]) -> dict[str, Any]:
        held.autoscaler = check_autoscaler(body)
        instances = min(max(held.instances, body["min"]), body["max"])
        if instances != held.instances:
            self.account.merge(held.name, {"metadata": {"instance": instances}})
        return _updating(held)

    def _held(self, request: Request) -> Held:
        if request.path_params["region"] != self.account.region:
            raise Refusal(404, "InvalidRegionId.NotFound", "The region does not exist.")
        return self.account.get(request.path_params["name"])

    def _model(self, request: Request) -> catalog.Model:
        found = [one for one in self.account.models if one["ModelId"] == request.path_params["id"]]
        if not found or request.query_params.get("ModelVersion") != found[0]["LatestVersionName"]:
            raise Refusal(404, "ModelNotFound", "The model or its version does not exist.")
        return found[0]

    def _profile(self, request: Request) -> dict[str, Any]:
        profiles = catalog.profiles(self._model(request))
        found = [one for one in profiles if one["ProfileId"] == request.query_params.get("ProfileId")]
        if not found:
            raise Refusal(404, "ProfileNotFound", "The profile does not exist.")
        return found[0]

    def _status(self, held: Held) -> str:
        return self.account.switches.stuck or held.status(self.account.clock())

    def _service(self, request: Request, held: Held) -> dict[str, Any]:
        running = self.account.running_instances(held)
        status, switches = self._status(held), self.account.switches
        shown: dict[str, Any] = {"ServiceName": held.name, "Status": status}
        if not switches.endpoints_apart:
            url = _address(request, held)
            shown |= {"InternetEndpoint": url, "IntranetEndpoint": url, "AccessToken": held.token}
        if switches.labels_shown:
            shown["Labels"] = [{"LabelKey": key, "LabelValue": value} for key, value in held.labels.items()]
        if switches.extra_fields:
            shown |= {"SomethingNew": {"Deep": [1, None]}, "Reason": None}
        if switches.bare:
            return shown
        return {
            "Region": self.account.region,
            "ServiceId": held.id,
            "ServiceUid": held.id,
            "RunningInstance": running,
            "PendingInstance": held.instances - running,
            "TotalInstance": held.instances,
            "Reason": status.upper(),
            "Message": held.message,
            "CreateTime": utc(held.made_at),
            "UpdateTime": utc([since for since, _ in held.life if since <= self.account.clock()][-1]),
            "ServiceConfig": json.dumps(held.config),
            **shown,
        }

    def _route(self, path: str, method: str, action: str, version: str, handler: _HANDLER) -> Route:
        return Route(path, self._endpoint(action, version, handler), methods=[method])

    def _endpoint(self, action: str, version: str, handler: _HANDLER) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            body = await request.body()
            try:
                verify(self.account, request.scope, body)
                self._check_action(request, action, version)
                return JSONResponse({"RequestId": secrets.token_hex(16).upper(), **handler(request, body)})
            except Refusal as refusal:
                response = refusal.response(lower_case=self.account.switches.lower_case_errors)
                if refusal.code.startswith("Throttling"):
                    response.headers["x-acs-retry-after"] = str(self.account.switches.throttle_milliseconds)
                return response

        return answer

    def _check_action(self, request: Request, action: str, version: str) -> None:
        if (request.headers["x-acs-action"], request.headers["x-acs-version"]) != (action, version):
            raise Refusal(404, "InvalidAction.NotFound", "Specified api is not found.")
        if self.account.switches.throttle_milliseconds:
            raise Refusal(400, "Throttling.User", "Request was denied due to user flow control.")


_VERBS = ("start", "stop", "restart")
_NOT_LISTED = {"InternetEndpoint": None, "IntranetEndpoint": None}


def _address(request: Request, held: Held) -> str:
    return f"http://{request.headers['host']}/api/predict/{held.name}"


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refusal(400, "InvalidParameter", "The body is not a JSON object.")
    return value


def _updating(held: Held) -> dict[str, Any]:
    return {"Message": f"Service [{held.name}] in region is updating"}
