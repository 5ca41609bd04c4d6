"""Whether a service's gateway leads to the service yet, and which models the service knows.

Just after EAS says Running, the gateway may answer 503 with no body or with "no healthy upstream", or
404 with no body; the vendor's SDK (alipai 0.4.13, read 2026-11-21) polls with GET up to 60 times, two
seconds apart, and not with HEAD, which blocks. The model list is asked for, as its answer also tells
the name that the engine serves. What else is answered comes from the service, so the gateway is ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.kit.http import Failure, VendorClient, VendorFailure, VendorResponse
from app.providers.errors import ProviderBusy

_TIMEOUT_SECONDS = 5.0
_NOT_READY = frozenset({(503, b""), (503, b"no healthy upstream"), (404, b"")})
_NAMES_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Served:
    """One model of the service's own list; `adapter` for a LoRA adapter on another one (vLLM's `parent`)."""

    name: str
    adapter: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """`ready` False: the gateway has no way to the service yet. `refused`: we may not call that address.
    `note` is for people."""

    ready: bool
    models: tuple[Served, ...] = ()
    refused: bool = False
    note: str | None = None
    empty_404: bool = False


async def ask(http: VendorClient, base_url: str, headers: dict[str, str]) -> Health:
    """Raises ProviderBusy when nothing is answered: the service may only be at its limit, so nothing changes."""
    try:
        response = await http.request("GET", f"{base_url}/models", headers=headers, timeout_seconds=_TIMEOUT_SECONDS)
    except VendorFailure as failure:
        if failure.reason is Failure.ADDRESS:
            return Health(
                False, refused=True, note="Its address may not be called from here; see docs/providers/pai.md."
            )
        raise ProviderBusy("The service's gateway does not answer.") from failure
    except ValueError:
        return Health(False, refused=True, note="EAS shows an address that cannot be called.")
    if (response.status_code, response.body.strip()) in _NOT_READY:
        note = f"EAS says that it runs; its gateway still answers {response.status_code}."
        return Health(False, note=note, empty_404=response.status_code == 404)
    return Health(True, _models(response))


def _models(response: VendorResponse) -> tuple[Served, ...]:
    if response.status_code != 200:
        return ()
    try:
        answer = response.json()
    except ValueError:
        return ()
    data = answer.get("data") if isinstance(answer, dict) else None
    return tuple(_served(entry) for entry in data[:_NAMES_LIMIT] if _named(entry)) if isinstance(data, list) else ()


def _served(entry: dict[str, Any]) -> Served:
    return Served(entry["id"], adapter=isinstance(entry.get("parent"), str))


def _named(entry: Any) -> bool:
    name = entry.get("id") if isinstance(entry, dict) else None
    return isinstance(name, str) and 0 < len(name) <= 256 and name.isprintable()


def own_name(models: Sequence[Served], wanted: str) -> str:
    """What the engine calls the deployment's model: its own name for it, else the first that is no adapter."""
    names = [model.name for model in models if not model.adapter]
    same = next((name for name in names if name.lower() == wanted.lower()), None)
    return same or (names[0] if names else wanted)
