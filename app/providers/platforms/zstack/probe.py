"""Whether an instance answers, and which models its engine serves.

ZStack tells neither the served model's name nor whether a key is wanted, so the engine's own list is asked
for. An instance that does not answer changes nothing: it may only be at its limit, or still starting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.kit.http import Failure, VendorClient, VendorFailure, VendorResponse
from app.providers.errors import ProviderBusy

_TIMEOUT_SECONDS = 5.0
_NOT_READY = frozenset({502, 503, 504})
_NAMES_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Served:
    """One model of the engine's own list; `adapter` for a LoRA adapter on another one (vLLM's `parent`)."""

    name: str
    adapter: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """`refused` says why the address may not be called from here; None where it answered."""

    models: tuple[Served, ...] = ()
    refused: str | None = None


async def ask(http: VendorClient, base_url: str, headers: Mapping[str, str]) -> Health:
    """Raises ProviderBusy when there is no answer of the engine's."""
    try:
        response = await http.request("GET", f"{base_url}/models", headers=headers, timeout_seconds=_TIMEOUT_SECONDS)
    except VendorFailure as failure:
        if failure.reason is Failure.ADDRESS:
            return Health(refused="Its address may not be called from here; see docs/providers/zstack.md.")
        raise ProviderBusy("ZStack says that it runs; the instance does not answer.") from failure
    except ValueError:
        return Health(refused="ZStack shows an address that cannot be called.")
    if response.status_code in _NOT_READY:
        raise ProviderBusy(f"ZStack says that it runs; the instance still answers {response.status_code}.")
    return Health(_models(response))


def own_name(models: Sequence[Served], wanted: str) -> str:
    """What the engine calls the deployment's model: its own name for it, else the first that is no adapter."""
    names = [model.name for model in models if not model.adapter]
    same = next((name for name in names if name.lower() == wanted.lower()), None)
    return same or (names[0] if names else wanted)


def _models(response: VendorResponse) -> tuple[Served, ...]:
    if response.status_code != 200:
        return ()
    try:
        answer = response.json()
    except ValueError:
        return ()
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        return ()
    named = [entry for entry in data[:_NAMES_LIMIT] if _is_named(entry)]
    return tuple(Served(entry["id"], adapter=isinstance(entry.get("parent"), str)) for entry in named)


def _is_named(entry: Any) -> bool:
    name = entry.get("id") if isinstance(entry, dict) else None
    return isinstance(name, str) and 0 < len(name) <= 256 and name.isprintable()
