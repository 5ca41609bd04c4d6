"""The one answer that is read of the server: its model list, `{"data": [{"id": …}]}`."""

from __future__ import annotations

from typing import Any

from app.domain.catalog import CatalogModel, Plan
from app.providers.client import INVALID_ANSWER
from app.providers.errors import ProviderRefused

EXISTING = Plan("existing", title="A server that runs already")
_NAME_LIMIT = 256
_COUNT_LIMIT = 10_000


def read_models(answer: Any, title: str) -> tuple[CatalogModel, ...]:
    """The listed models, in the server's order. Raises ProviderRefused when it is no such list."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise ProviderRefused(f"{title} answered with something other than a model list.", code=INVALID_ANSWER)
    return tuple(_model(entry) for entry in entries[:_COUNT_LIMIT] if _named(entry))


def _named(entry: Any) -> bool:
    name = entry.get("id") if isinstance(entry, dict) else None
    return isinstance(name, str) and 0 < len(name) <= _NAME_LIMIT and name.isprintable()


def _model(entry: dict[str, Any]) -> CatalogModel:
    length = entry.get("max_model_len")  # vLLM's and SGLang's name; OpenAI's own list has none
    return CatalogModel(
        name=entry["id"],
        source=entry["owned_by"] if isinstance(entry.get("owned_by"), str) else None,
        plans=(EXISTING,),
        capabilities=("deploy",),
        context_length=length if isinstance(length, int) and length > 0 else None,
        raw={name: entry[name] for name in ("id", "object", "owned_by", "root", "parent") if name in entry},
    )
