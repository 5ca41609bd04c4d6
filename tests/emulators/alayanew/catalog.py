"""The models and data centres of the emulated account, in the shapes of the vendor's pages."""

from __future__ import annotations

from typing import Any

BASE_MODEL = "c486cdee-c316-4fc1-9f75-0d1741940f27"
LORA_MODEL = "5d0c1f7e-9a55-4a36-8a0e-2f1c27f0a911"


def model(identifier: str, name: str, *, kind: str = "base", aidc: int = 1) -> dict[str, Any]:
    return {
        "id": identifier,
        "aidcId": aidc,
        "modelSourcePath": f"/models/source/{name}",
        "modelPath": f"/models/{identifier}",
        "modelMeta": {"name": name, "description": f"{name} of the tests"},
        "modelType": kind,
        "modelExtensions": {"family": name.split("-", maxsplit=1)[0]},
        "tenantId": "t-1",
        "createUser": "u-1",
        "createAt": "2025-07-22 14:32:25.123",
    }


def models() -> list[dict[str, Any]]:
    return [
        model(BASE_MODEL, "qwen3-8b"),
        model("0b1c9f62-3c55-4c0b-bb58-77a90a1d5a10", "deepseek-r1-distill-7b"),
        model(LORA_MODEL, "qwen3-8b-support", kind="lora"),
        model("e7ad5a52-92b5-4c39-9f3d-9a4c57a0f2c3", "qwen3-32b", aidc=2),
    ]


def data_centres() -> list[dict[str, Any]]:
    return [{"id": 1, "name": "Beijing-1"}, {"id": 2, "name": "Hangzhou-1"}]
