"""What a server is started with: command line, environment and limits, from the operator's engine.

For the built-in llama.cpp everything goes through a configuration file, as a command line can be
read by every user of the host. Other engines get the operator's words with the placeholders filled.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.kit import json
from app.providers.local_file import PLACEHOLDER
from app.providers.local_host import LocalEngine, LocalHost, LocalModel
from app.providers.platforms.local.arguments import as_words
from app.providers.platforms.local.plan import CONTEXT_FLAG, ServerPlan
from app.providers.platforms.local.state import Record, ServerPlace

_LLAMA_SERVER = Path(__file__).with_name("llama_server.py")
_CONTEXT_LENGTH = 4096
_SLOTS = 2
_LOWEST_PORT = 20_000
_PORT_TRIES = 100
_LLAMA_NAMES = {
    "--predict": "n_predict",
    "--batch-size": "n_batch",
    "--ubatch-size": "n_ubatch",
    "--gpu-layers": "n_gpu_layers",
    "--flash-attn": "flash_attention",
    "--cache-type-k": "cache_type_k",
    "--cache-type-v": "cache_type_v",
    "--embeddings": "embeddings",
    "--pooling": "pooling",
}
"""Our flag → the name in the configuration file of `llama_server.py`."""


class NotOffered(Exception):
    """The node no longer has the model, or its engine; the text is for the tenant."""


@dataclass(frozen=True, slots=True)
class Launch:
    """`port` None: the server chooses, and says so in its address file."""

    command: tuple[str, ...]
    port: int | None
    environment: Mapping[str, str] = field(repr=False)
    limits: Mapping[str, Any] = field(default_factory=dict)


def make_launch(host: LocalHost, place: ServerPlace, record: Record) -> Launch:
    """Write the files that the server reads, and say how to start it. Raises NotOffered."""
    model = host.models.get(record.plan.model)
    engine = host.engines.get(record.plan.engine)
    if model is None or engine is None or model.engine != engine.name:
        raise NotOffered(f"This node no longer offers {record.plan.model} with {record.plan.engine}.")
    limits = {"memory_bytes": record.plan.memory_bytes, "sha256": model.sha256, "file": str(model.path)}
    if not engine.command:
        command = _llama_command(host, place, record, model)
        return Launch(command, None, _environment(host, place, record.plan, {}), limits)
    port = _free_port(host.address)
    fill = _filler(host, place, record, model, port)
    command = (*map(fill, engine.command), *as_words(record.plan.arguments))
    environment = {name: fill(value) for name, value in engine.environment.items()}
    return Launch(command, port, _environment(host, place, record.plan, environment), limits)


def readiness_path(engine: LocalEngine | None) -> str:
    return engine.readiness_path if engine else "/health"


def _llama_command(host: LocalHost, place: ServerPlace, record: Record, model: LocalModel) -> tuple[str, ...]:
    given = record.plan.arguments
    most = min(_CONTEXT_LENGTH, model.context_length or _CONTEXT_LENGTH)
    config = {
        "model": str(model.path),
        "name": model.name,
        "host": host.address,
        "api_key": record.api_key,
        "address_path": str(place.address_path),
        "context_length": given.get(CONTEXT_FLAG, most),
        "slots": given.get("--parallel", _SLOTS),
        "threads": given.get("--threads", record.plan.threads or max(1, host.cpu_count // 2)),
        **{name: given[flag] for flag, name in _LLAMA_NAMES.items() if flag in given},
    }
    path = _private_file(place.directory / "llama.json", json.dumps(config))
    return str(host.python), "-I", str(_LLAMA_SERVER), str(path)


def _filler(host: LocalHost, place: ServerPlace, record: Record, model: LocalModel, port: int) -> Any:
    """A function that fills the placeholders of one word; what is filled in is not looked at again."""
    key_path = _private_file(place.directory / "api.key", record.api_key.encode())
    values = {
        "model": str(model.path),
        "served_name": model.name,
        "host": host.address,
        "port": str(port),
        "api_key": record.api_key,
        "api_key_file": str(key_path),
        "python": str(host.python),
    }
    return lambda word: PLACEHOLDER.sub(lambda found: values[found[1]], word)


def _environment(host: LocalHost, place: ServerPlace, plan: ServerPlan, engine: Mapping[str, str]) -> dict[str, str]:
    """Nothing of ours but an allow-list; home and temporary files go with the server's directory."""
    threads = {"OMP_NUM_THREADS": str(plan.threads)} if plan.threads else {}
    home = str(place.directory)
    return {**host.environment, "HOME": home, "TMPDIR": home, **threads, **engine}


def _private_file(path: Path, content: bytes) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path


def _free_port(address: str) -> int:
    """A port that nothing listens on, below those that the kernel gives to outgoing connections.

    A port of the kernel's choice is taken by another process before the server gets to it about once
    in 500 starts (measured, 20 at a time); should that happen here, the server dies and is started anew.
    """
    for _ in range(_PORT_TRIES):
        port = _LOWEST_PORT + secrets.randbelow(_ephemeral_start() - _LOWEST_PORT)
        if _can_listen(address, port):
            return port
    raise OSError(errno.EADDRINUSE, "no free port")


def _ephemeral_start() -> int:
    with suppress(OSError, ValueError):
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        return max(low, _LOWEST_PORT + 1000)
    return 32_768


def _can_listen(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        try:
            listener.bind((address, port))
        except OSError:
            return False
        return True
