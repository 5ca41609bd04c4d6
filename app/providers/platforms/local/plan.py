"""From a deployment's spec to what one model server is started with: a `ServerPlan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain.deployment import DeploymentSpec
from app.errors import FieldError, InvalidRequest
from app.providers.local_host import LLAMA_CPP, ArgumentRule, LocalEngine, LocalHost, LocalModel
from app.providers.platforms.local.arguments import Value, parse_arguments

CONTEXT_FLAG = "--ctx-size"
_LEAST_MEMORY_BYTES = 64 * 1024 * 1024
_MOST_MEMORY_BYTES = 64 * 1024**4


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """One server. `threads` None leaves the choice to the engine, `memory_bytes` None is no limit."""

    model: str
    engine: str
    arguments: Mapping[str, Value] = field(default_factory=dict)
    threads: int | None = None
    memory_bytes: int | None = None


def make_plan(host: LocalHost, spec: DeploymentSpec) -> ServerPlan:
    """Check everything that can be known beforehand, without I/O. Raises InvalidRequest."""
    model = host.models.get(spec.model)
    if model is None:
        offered = ", ".join(sorted(host.models)) or "none"
        raise _wrong("model", f"This node has no model {spec.model[:80]!r}; it has: {offered}.", "unknown_model")
    engine = _engine(host, model, spec.engine)
    rules = _rules(engine, model)
    arguments = parse_arguments(spec.engine.get("args") or (), rules, engine=engine.name)
    threads, memory_bytes = _resources(host, spec.resources)
    return ServerPlan(model.name, engine.name, arguments, threads, memory_bytes)


def _engine(host: LocalHost, model: LocalModel, wanted: Mapping[str, Any]) -> LocalEngine:
    """The model's engine; a deployment may name it and its version, and may not choose another."""
    engine = host.engines[model.engine]
    name, version = wanted.get("name"), wanted.get("version")
    if name is not None and name != engine.name:
        raise _wrong("engine.name", f"On this node {model.name} is served by {engine.name}.", "unknown_engine")
    if version is not None and version != engine.version:
        there = engine.version or "unknown"
        raise _wrong("engine.version", f"This node's {engine.name} has version {there}.", "unknown_engine")
    return engine


def _rules(engine: LocalEngine, model: LocalModel) -> Mapping[str, ArgumentRule]:
    """The engine's rules; llama.cpp's context is bounded by what the model was trained with as well."""
    context = engine.arguments.get(CONTEXT_FLAG)
    if engine.name != LLAMA_CPP or context is None or model.context_length is None:
        return engine.arguments
    most = min(context.maximum or model.context_length, model.context_length)
    return {**engine.arguments, CONTEXT_FLAG: ArgumentRule("integer", min(context.minimum or 1, most), most)}


def _resources(host: LocalHost, resources: Mapping[str, Any]) -> tuple[int | None, int | None]:
    threads = _bounded(resources, "cpu", 1, 2 * host.cpu_count)
    memory_bytes = _bounded(resources, "memory_bytes", _LEAST_MEMORY_BYTES, _MOST_MEMORY_BYTES)
    _bounded(resources, "workers", 1, 1)
    if resources.get("gpu"):
        message = "Graphics cards of this node are given to engines by its operator, not by a deployment."
        raise _wrong("resources.gpu", message, "field_not_supported")
    return threads, memory_bytes


def _bounded(resources: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = resources.get(name)
    if value is None:
        return None
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0
    if not low <= number <= high or number != int(number):
        message = f"On this node '{name}' must be a whole number from {low} to {high}."
        raise _wrong(f"resources.{name}", message, "out_of_range")
    return int(number)


def _wrong(param: str, message: str, code: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code=code, fields=[FieldError(param, message, code)])
