"""`/v1/models`: what this key can call now, in OpenAI's shape. Nothing here reaches an upstream."""

from __future__ import annotations

from typing import Any

from app.domain.usage import Outcome
from app.errors import ModelNotFound
from app.kit import json
from app.proxy.answer import answer_json
from app.proxy.authenticate import Authenticator
from app.proxy.call import Call
from app.proxy.directory import Directory
from app.proxy.endpoints import MODELS
from app.proxy.resolve import CallableModel, callable_models

PLATFORM_OWNER = "modelport"


class Models:
    """The stories of the list and of one model."""

    def __init__(self, authenticator: Authenticator, directory: Directory) -> None:
        self._authenticator = authenticator
        self._directory = directory

    async def answer_list(self, call: Call) -> None:
        shown = [self._shown(model) for model in self._visible(call)]
        call.outcome = Outcome.COMPLETE
        answer_json(call, json.dumps({"object": "list", "data": shown}))

    async def answer_one(self, call: Call) -> None:
        name = call.exchange.path.removeprefix(f"{MODELS}/")
        found = next((model for model in self._visible(call) if model.name == name), None)
        if found is None:
            message = f"The model '{name[:200]}' does not exist, or this key has no access to it. See GET /v1/models."
            raise ModelNotFound(message, param="model")
        call.outcome = Outcome.COMPLETE
        answer_json(call, json.dumps(self._shown(found)))

    def _visible(self, call: Call) -> list[CallableModel]:
        call.principal = self._authenticator.identify(call.exchange.header(b"authorization"))
        tenant_id = self._authenticator.admit(call.principal)
        models = callable_models(self._directory, tenant_id)
        return [model for model in models if call.principal.may_call(model.name)]

    def _shown(self, model: CallableModel) -> dict[str, Any]:
        owner = self._directory.tenant(model.owner) if model.owner else None
        return {
            "id": model.name,
            "object": "model",
            "created": int(model.created_at),
            "owned_by": owner.name if owner else PLATFORM_OWNER,
        }
