"""The emulated ModelGallery: its models, the 27 filters, and the way from a model to a deployable spec."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from tests.emulators.pai.refusal import Refusal

Model = dict[str, Any]
MACHINE = "ml.gu8is.c16m128.1-gu60"
_OTHER_MACHINE = "ecs.gn7i-c8g1.2xlarge"
_EXACT = ("Domain", "Task", "Origin", "ModelType", "ModelSeries")
_FLAGS = (
    "Demonstrable", "Deployable", "Trainable", "Evaluable", "Compressible", "Distillable", "DeepThink", "FunctionCall",
)  # fmt: skip
_RESOURCES = ("Inference", "Training", "Evaluation", "Compression", "Distillation")
_SEARCHED = ("ModelName", "Domain", "Task", "Origin", "ModelSeries", "SearchWords")
_SORTED_BY = frozenset({"GmtCreateTime", "GmtLatestVersionModified", "OrderNumber"})
_OPERATORS: Mapping[str, Callable[[int, int], bool]] = {
    "LessThan": operator.lt,
    "LessThanOrEqualTo": operator.le,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqualTo": operator.ge,
    "EqualTo": operator.eq,
    "NotEqualTo": operator.ne,
}


def make_model(number: int, name: str, **more: Any) -> Model:
    """A model with every documented member."""
    return {
        "GmtCreateTime": f"2026-01-{number % 28 + 1:02}T00:00:00Z",
        "GmtModifiedTime": "2026-06-01T00:00:00Z",
        "ModelId": f"model-{number}",
        "ModelName": name,
        "ModelDescription": f"{name}, emulated",
        "LatestVersionName": "1.0.0",
        "GmtLatestVersionModified": f"2026-05-{number % 28 + 1:02}T00:00:00Z",
        "OrderNumber": number,
        "Origin": "ModelScope",
        "Domain": "aigc",
        "Task": "large-language-model",
        "ParameterSize": 8000,
        "ModelDoc": "",
        "ModelType": "Endpoint",
        "Collection": "QuickStart",
        "SearchWords": name.lower(),
        "ModelSeries": "Qwen",
        **dict.fromkeys(_FLAGS, False),
        "Deployable": True,
        **{f"Supported{kind}Resources": "GPU" for kind in _RESOURCES},
        "Tags": {"Key": "k1", "Value": "v1"},
        "ExtraInfo": {},
        **{f"Supported{kind}Methods": {} for kind in _RESOURCES},
        **more,
    }


def default_models() -> list[Model]:
    return [
        make_model(1, "Qwen3-8B", FunctionCall=True, DeepThink=True, Trainable=True),
        make_model(2, "Qwen3-8B-Base", ParameterSize=8000, Task="text-generation", Origin="PAI"),
        make_model(3, "DeepSeek-V3.2", ParameterSize=671000, ModelSeries="DeepSeek", DeepThink=True),
        make_model(4, "bge-m3", Domain="nlp", Task="embedding", ParameterSize=560, Deployable=False),
    ]


def select(models: list[Model], query: Mapping[str, str]) -> list[Model]:
    """The models that match, sorted; paging is the caller's."""
    found = [model for model in models if _matches(model, query)]
    order, by = query.get("Order", "ASC").upper(), query.get("SortBy", "GmtCreateTime")
    if order not in {"ASC", "DESC"} or by not in _SORTED_BY:
        raise Refusal(400, "InvalidParameter", "Order or SortBy is not valid.")
    return sorted(found, key=lambda model: model[by], reverse=order == "DESC")


def page(query: Mapping[str, str], cap: int) -> slice:
    try:
        number, size = int(query.get("PageNumber", "1")), int(query.get("PageSize", "10"))
    except ValueError:
        raise Refusal(400, "InvalidParameter", "PageNumber and PageSize must be integers.") from None
    if number < 1 or size < 1:
        raise Refusal(400, "InvalidParameter", "PageNumber and PageSize begin at 1.")
    size = min(size, cap)
    return slice((number - 1) * size, number * size)


def profiles(model: Model) -> list[dict[str, Any]]:
    common = {"Category": "singlenode", "Scenario": "singlenode-balanced", "Members": [{"MemberType": "Default"}]}
    return [
        {"ProfileId": "prf_vllm", "Framework": "vllm", **common, "Devices": [_device("NVIDIA_L20", MACHINE)]},
        {
            "ProfileId": "prf_sglang",
            "Framework": "sglang",
            **common,
            "Devices": [_device("NVIDIA_A10", _OTHER_MACHINE)],
        },
    ]


def resources(profile: Mapping[str, Any]) -> list[dict[str, Any]]:
    machines = [one for device in profile["Devices"] for one in device["InstanceTypes"]]
    return [
        {
            "MemberType": "Default",
            "PublicResources": [{"InstanceType": one} for one in machines],
            "Quotas": [{"QuotaId": "quota1"}],
            "DedicatedResources": [{"ResourceId": "eas-r-1"}, {"ResourceId": "eas-r-2"}],
        }
    ]


def inference_spec(model: Model, profile: Mapping[str, Any], selections: str) -> dict[str, Any]:
    """`selections` is a JSON array, percent-encoded by the caller before it became a parameter."""
    chosen = _json(unquote(selections) or "[]")
    first = chosen[0] if chosen else {}
    machine = first.get("InstanceType") or profile["Devices"][0]["InstanceTypes"][0]
    place: dict[str, Any] = {"cloud": {"computing": {"instance_type": machine}}}
    if first.get("ResourceId"):
        place = {"metadata": {"resource": first["ResourceId"]}}
    if first.get("QuotaId"):
        place = {"metadata": {"quota_id": first["QuotaId"]}}
    metadata = {"cpu": 16, "gpu": 1, "memory": 131072, **place.pop("metadata", {})}
    script = f"{profile['Framework']} serve /model --served-model-name {model['ModelName']}"
    image = "eas-registry-vpc.cn-hangzhou.cr.aliyuncs.com/pai-eas/llm:0.9"
    return {"metadata": metadata, "containers": [{"image": image, "port": 8000, "script": script}], **place}


def _matches(model: Model, query: Mapping[str, str]) -> bool:
    return all(
        [
            _named(model["ModelName"], query.get("ModelName", "")),
            all(query.get(name, model[name]) == model[name] for name in _EXACT),
            query.get("Collections", model["Collection"]) == model["Collection"],
            all(_flag(query[name]) == model[name] for name in _FLAGS if name in query),
            all(query.get(f"Supported{kind}Resource", "") in model[f"Supported{kind}Resources"] for kind in _RESOURCES),
            all(tag == model["Tags"] for tag in _json(query.get("Tag", "[]"))),
            all(_condition(model, one) for one in _json(query.get("Conditions", "[]"))),
            any(query.get("Query", "").lower() in str(model[name]).lower() for name in _SEARCHED),
        ]
    )


def _named(name: str, asked: str) -> bool:
    """Fuzzy, or exact within double quotes."""
    if len(asked) >= 2 and asked[0] == asked[-1] == '"':
        return name == asked[1:-1]
    return asked.lower() in name.lower()


def _flag(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise Refusal(400, "InvalidParameter", "A boolean must be true or false.")
    return text.lower() == "true"


def _condition(model: Model, condition: Mapping[str, Any]) -> bool:
    try:
        compare, value = _OPERATORS[condition["Operator"]], int(condition["Value"])
    except (KeyError, ValueError, TypeError):
        raise Refusal(400, "InvalidParameter", "Conditions is not valid.") from None
    if condition.get("Column") != "ParameterSize":
        raise Refusal(400, "InvalidParameter", "Only ParameterSize can be compared.")
    return compare(model["ParameterSize"], value)


def _json(text: str) -> list[dict[str, Any]]:
    try:
        value = json.loads(text)
    except ValueError:
        raise Refusal(400, "InvalidParameter", "A parameter is not valid JSON.") from None
    if not isinstance(value, list):
        raise Refusal(400, "InvalidParameter", "A parameter is not a JSON array.")
    return value


def _device(name: str, machine: str) -> dict[str, Any]:
    return {
        "DeviceType": name,
        "DisplayName": name.replace("_", " "),
        "DeviceCategory": "GPU",
        "InstanceTypes": [machine],
    }
