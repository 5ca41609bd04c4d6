"""What the platform refuses: the documented members of each body, their types, and a scale's bounds."""

from __future__ import annotations

from typing import Any

_TEXT, _LIST, _WHOLE, _OBJECT = str, list, int, dict
_SHAPES: dict[str, dict[str, type]] = {
    "quickStart": {
        "vksId": _TEXT,
        "namespace": _TEXT,
        "name": _TEXT,
        "servedName": _LIST,
        "modelId": _TEXT,
        "backend": _TEXT,
        "backendVersion": _TEXT,
        "backendArgs": _LIST,
        "resource": _OBJECT,
    },
    "expert": {
        "vksId": _TEXT,
        "namespace": _TEXT,
        "name": _TEXT,
        "servedName": _LIST,
        "modelId": _TEXT,
        "scale": _OBJECT,
        "headConfig": _OBJECT,
    },
    "lora": {"baseServiceId": _TEXT, "modelId": _TEXT, "name": _TEXT, "servedName": _LIST},
}
_RESOURCE: dict[str, type] = {"cpu": _WHOLE, "mem": _WHOLE, "gpu": _OBJECT}
_GPU: dict[str, type] = {"gpuType": _TEXT, "count": _WHOLE}


class Refusal(Exception):
    """An error on its way out. `status` is the one it has where errors are not put into a 200."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message, self.status = message, status


def check_body(mode: str, body: dict[str, Any]) -> None:
    """Raises Refusal for a body that lacks a documented member or has another type there."""
    _check(body, _SHAPES[mode], "")
    if not body["servedName"] or not all(isinstance(name, str) and name for name in body["servedName"]):
        raise Refusal("param servedName is invalid")
    if mode == "quickStart":
        if body["backend"] not in {"vllm", "sglang"}:
            raise Refusal("param backend must be vllm or sglang")
        _check_resource(body["resource"], "resource")
    if mode == "expert":
        _check(body["headConfig"], {"image": _TEXT, "resource": _OBJECT}, "headConfig.")
        _check_resource(body["headConfig"]["resource"], "headConfig.resource")
        check_scale(body["scale"])


def check_scale(scale: Any) -> None:
    if not isinstance(scale, dict):
        raise Refusal("param scale is required")
    low, high = scale.get("min"), scale.get("max")
    if type(low) is not int or type(high) is not int or not 0 <= low <= high or high < 1:
        raise Refusal("param scale is invalid: 0 <= min <= max, max >= 1")


def _check_resource(resource: dict[str, Any], where: str) -> None:
    _check(resource, _RESOURCE, f"{where}.")
    _check(resource["gpu"], _GPU, f"{where}.gpu.")


def _check(body: Any, shape: dict[str, type], where: str) -> None:
    for name, kind in shape.items():
        if type(body.get(name)) is not kind or body[name] == "":
            raise Refusal(f"param {where}{name} is required")
