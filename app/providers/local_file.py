"""The operator's file of engines and models (`MODELPORT_LOCAL_ENGINES`): its shape.

Without a file the node offers the engine `llama.cpp` and, where its package is installed, the small
model `smollm2-135m-instruct`. With a file it offers `llama.cpp` and what the file says:

    model_directories = [{ path = "/srv/models", engine = "llama.cpp" }]

    [models.qwen3-8b]
    path = "/srv/models/hub/Qwen3-8B"
    engine = "vllm"                   # default: llama.cpp
    title = "Qwen3 8B"
    context_length = 32768

    [models.tiny]
    path = "tiny.gguf"                # relative to this file
    sha256 = "b179c952…"              # 64 hex digits; a server checks it each time it starts

    [engines."llama.cpp"]             # built in; only its bounds can be set
    max_slots = 8
    max_context_length = 32768

    [engines.vllm]
    version = "0.8.4"
    command = ["/opt/vllm/bin/vllm", "serve", "{model}", "--served-model-name", "{served_name}",
               "--host", "{host}", "--port", "{port}"]
    readiness_path = "/health"
    environment = { VLLM_API_KEY = "{api_key}", HF_HUB_OFFLINE = "1" }
    inherit_environment = ["CUDA_VISIBLE_DEVICES"]

    [engines.vllm.arguments]          # what a deployment's engine.args may say, and nothing else
    "--max-model-len" = { type = "integer", minimum = 256, maximum = 32768 }
    "--dtype" = { type = "choice", values = ["auto", "bfloat16"] }
    "--enforce-eager" = { type = "flag" }

Placeholders of `command`: `{model} {served_name} {host} {port} {api_key_file} {python}`, and of
`environment` also `{api_key}`, which is no good in a command line because every user can read it.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from app.providers.local_host import LLAMA_CPP, LocalHostError

PLACEHOLDER = re.compile(r"\{([a-z0-9_]+)\}")
_COMMAND_PLACEHOLDERS = frozenset({"model", "served_name", "host", "port", "api_key_file", "python"})
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


def _command_word(word: str) -> str:
    return _known_placeholders(word, _COMMAND_PLACEHOLDERS)


def _environment_value(text: str) -> str:
    return _known_placeholders(text, _COMMAND_PLACEHOLDERS | {"api_key"})


def _known_placeholders(text: str, known: frozenset[str]) -> str:
    for name in PLACEHOLDER.findall(text):
        if name not in known:
            hint = "; put the key into `environment` or use {api_key_file}" if name == "api_key" else ""
            raise ValueError(f"{{{name}}} is no placeholder here{hint}")
    return text


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("MODELPORT_"):
        raise ValueError("must be the name of a variable, and none of Modelport's own")
    return name


Variable = Annotated[str, AfterValidator(_variable)]
Name = Annotated[str, Field(pattern=_NAME)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RuleTable(_Table):
    type: Literal["integer", "number", "choice", "flag"]
    minimum: float | None = None
    maximum: float | None = None
    values: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._,:+-]{0,63}$")]] = []


class EngineTable(_Table):
    command: Annotated[list[Annotated[str, AfterValidator(_command_word)]], Field(min_length=1)]
    version: str | None = None
    readiness_path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9/._-]*$")] = "/health"
    environment: dict[Variable, Annotated[str, AfterValidator(_environment_value)]] = {}
    inherit_environment: list[Variable] = []
    arguments: dict[Annotated[str, Field(pattern=r"^--?[A-Za-z0-9][A-Za-z0-9-]*$")], RuleTable] = {}


class LlamaTable(_Table):
    """`[engines."llama.cpp"]`: the only engine that needs no command."""

    max_context_length: Annotated[int, Field(ge=256, le=10_000_000)] = 131_072
    max_slots: Annotated[int, Field(ge=1, le=64)] = 64


class ModelTable(_Table):
    path: Annotated[str, Field(min_length=1)]
    engine: Name = LLAMA_CPP
    title: str | None = None
    context_length: Annotated[int, Field(ge=1)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class DirectoryTable(_Table):
    path: Annotated[str, Field(min_length=1)]
    engine: Name = LLAMA_CPP


class EnginesFile(_Table):
    model_directories: list[DirectoryTable] = []
    models: dict[Name, ModelTable] = {}
    engines: dict[Name, EngineTable] = {}
    llama: LlamaTable = LlamaTable()


def read_engines_file(path: Path) -> EnginesFile:
    """The file, checked. Raises LocalHostError: one line, naming the key that is wrong."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as failure:
        raise LocalHostError(f"{path}: {failure.strerror or 'cannot be read'}") from None
    except ValueError as wrong:
        raise LocalHostError(f"{path}: {wrong}") from None
    try:
        return EnginesFile.model_validate(_with_llama_apart(content))
    except ValidationError as wrong:
        first = wrong.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise LocalHostError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def _with_llama_apart(content: dict[str, Any]) -> dict[str, Any]:
    engines = content.get("engines")
    if "llama" in content or not isinstance(engines, dict) or LLAMA_CPP not in engines:
        return content
    others = {name: table for name, table in engines.items() if name != LLAMA_CPP}
    return {**content, "engines": others, "llama": engines[LLAMA_CPP]}
