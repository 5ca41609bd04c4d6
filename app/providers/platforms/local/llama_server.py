"""The built-in model server: llama.cpp's own HTTP server, in this process.

    python -I llama_server.py CONFIG.json

It runs by its path and imports nothing of Modelport. The configuration holds `model` (a file),
`name`, `host`, `api_key`, `address_path`, and the parameters of `_configure`. The kernel chooses the
port; it is written to `address_path`, as a whole, once the server listens. Prompts are not logged
at this verbosity, and the endpoint that would show them (`/slots`) is off.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import xllamacpp

_PROMPT_CACHE_MIB = 256
_FLASH_ATTENTION = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}


def main(config_path: str) -> None:
    config: dict[str, Any] = json.loads(Path(config_path).read_bytes())
    server = xllamacpp.Server(_parameters(config))
    _announce(Path(config["address_path"]), urlsplit(server.listening_address).port)
    while True:
        signal.pause()


def _parameters(config: dict[str, Any]) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = config["model"]
    parameters.model_alias = {config["name"]}
    parameters.hostnames = [config["host"]]
    parameters.port = 0
    parameters.api_keys = [config["api_key"]]
    parameters.verbosity = 1
    parameters.warmup = False
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = False
    parameters.ui = False
    parameters.cache_ram_mib = _PROMPT_CACHE_MIB
    _configure(parameters, config)
    return parameters


def _configure(parameters: Any, config: dict[str, Any]) -> None:
    """llama.cpp shares one context among its slots, so each slot's share is multiplied."""
    parameters.n_parallel = config["slots"]
    parameters.n_ctx = config["context_length"] * config["slots"]
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = config["threads"]
    for name in ("n_predict", "n_batch", "n_ubatch", "n_gpu_layers"):
        if name in config:
            setattr(parameters, name, config[name])
    for name in ("cache_type_k", "cache_type_v"):
        if name in config:
            setattr(parameters, name, getattr(xllamacpp.ggml_type, f"GGML_TYPE_{config[name].upper()}"))
    if "flash_attention" in config:
        mode = _FLASH_ATTENTION[config["flash_attention"]]
        parameters.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{mode}")
    if config.get("embeddings"):
        pooling = config.get("pooling", "mean").upper()
        parameters.embedding = True
        parameters.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{pooling}")


def _announce(path: Path, port: int | None) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"port": port}))
    temporary.replace(path)


if __name__ == "__main__":
    main(sys.argv[1])
