"""What the emulated installation can deploy: model services with every documented member, and models."""

from __future__ import annotations

from typing import Any

ZONE = "1" * 32
LLM_SERVICE = "732f371cb8194439b2a08054a9bc061a"
OTHER_SERVICE = "a0a4dfd377a13862bb92614482ea2d42"
QWEN, EMBEDDER, LONELY = "2" * 32, "4" * 32, "5" * 32


def make_service(uuid: str, name: str, *models: str, **more: Any) -> dict[str, Any]:
    """A model service bound to those models."""
    return {
        "uuid": uuid,
        "name": name,
        "description": f"This is {name}",
        "readme": "# How to use it",
        "yaml": "engine: vllm\nHF_TOKEN: hf_FAKEFAKEFAKE\n",
        "requestCpu": 4,
        "requestMemory": 1024,
        "modelCenterUuid": "6" * 32,
        "type": "Endpoint",
        "framework": "vLLM",
        "source": "HuggingFace",
        "size": 4096,
        "system": True,
        "hasNewVersion": False,
        "gpuComputeCapability": "7.5",
        "installPath": "ms://install",
        "pythonVersion": "3.10",
        "condaVersion": "24.1",
        "version": "1.0",
        "startCommand": "python serve.py",
        "containerCommand": "serve",
        "containerArgs": "--port 3000",
        "supportDistributed": False,
        "cpuArchitectures": ["X86_64", "AARCH64"],
        "vendorToSpecUuidsMap": {"NVIDIA": ["7" * 32]},
        "modelServiceRefs": [{"uuid": f"{uuid[:31]}0", "modelUuid": one, "modelServiceUuid": uuid} for one in models],
        "modelServiceImages": [
            {"uuid": "8" * 32, "modelServiceUuid": uuid, "cpuArchitecture": "X86_64", "vmImageUuid": "9" * 32,
             "dockerImage": "registry.example/vllm:x86_64"},
            {"uuid": "a" * 32, "modelServiceUuid": uuid, "cpuArchitecture": "AARCH64", "vmImageUuid": "b" * 32,
             "dockerImage": "registry.example/vllm:aarch64"},
        ],
        "createDate": "Nov 14, 2025 10:20:57 PM",
        "lastOpDate": "Nov 14, 2025 10:20:57 PM",
        **more,
    }  # fmt: skip


def services() -> list[dict[str, Any]]:
    return [
        make_service(LLM_SERVICE, "text to text model service", QWEN),
        make_service(OTHER_SERVICE, "embedding service", EMBEDDER, QWEN, framework="TEI"),
        make_service("c" * 32, "tuner", type="FineTune"),
        {"uuid": "d" * 32, "name": "bare", "requestCpu": 4, "requestMemory": 1024, "supportDistributed": False},
    ]


def models() -> list[dict[str, Any]]:
    return [
        {"uuid": QWEN, "name": "qwen3-8b", "description": "Qwen3 8B", "size": 16_000_000_000, "type": "LLM"},
        {"uuid": EMBEDDER, "name": "bge-m3", "description": "", "size": 2_000_000_000, "type": "Embedding"},
        {"uuid": LONELY, "name": "lonely", "description": "bound to nothing"},
    ]
