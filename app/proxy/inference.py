"""One call to a model, from its first byte to its last: the story of the data plane.

who ─▶ read ─▶ parse once ─▶ where ─▶ hold ─▶ send ─▶ relay ─▶ settle (`calls`)
"""

from __future__ import annotations

from app.domain.tenant import Principal
from app.errors import NotPermitted
from app.http1.pool import UpstreamResponse
from app.proxy.attempts import Attempts
from app.proxy.authenticate import Authenticator, credentials
from app.proxy.call import Call
from app.proxy.calls import Calls
from app.proxy.dialect import MESSAGES
from app.proxy.endpoints import Endpoint
from app.proxy.form_request import is_form, read_form
from app.proxy.limits import ProxyLimits
from app.proxy.metering import Metering
from app.proxy.relay import answer_media, answer_stream, answer_whole, refused_by_upstream
from app.proxy.request import AnyRequest, check_media_type, parse_request


class Inference:
    """The story of one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        authenticator: Authenticator,
        calls: Calls,
        attempts: Attempts,
        limits: ProxyLimits,
        metering: Metering | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._bare_key = endpoint.dialect is MESSAGES
        self._authenticator = authenticator
        self._calls = calls
        self._attempts = attempts
        self._limits = limits
        self._metering = metering

    async def __call__(self, call: Call) -> None:
        exchange = call.exchange
        call.principal = self._authenticator.identify(credentials(exchange, bare_key=self._bare_key))
        tenant_id = self._authenticator.admit(call.principal)
        content_type = exchange.header(b"content-type")
        request: AnyRequest
        if self._endpoint.takes_form and is_form(content_type):
            request = await read_form(exchange, self._limits)
        else:
            check_media_type(content_type)
            request = parse_request(await exchange.read_body(self._limits.request_bytes))
        call.model = request.model
        _require_model(call.principal, request.model)
        call.cancel_when_client_leaves()
        attempts = self._attempts
        target = attempts.choose(call, request, tenant_id) or await attempts.line_up(call, request, tenant_id)
        if self._metering is not None:
            waiting = self._metering.admit(call, request, self._endpoint, target, tenant_id)
            if waiting is not None:
                await waiting
        call.admitted = True
        response = await attempts.send(call, request, target)
        try:
            await self._answer(call, request, response)
        finally:
            response.close()

    async def _answer(self, call: Call, request: AnyRequest, response: UpstreamResponse) -> None:
        endpoint, limits, model = self._endpoint, self._limits, request.model
        if response.status_code != 200:
            self._calls.refused(call, response.status_code)
            raise await refused_by_upstream(call, endpoint, response, limits)
        if endpoint.media:
            await answer_media(call, endpoint, response, limits, model)
        elif request.stream and endpoint.streams:
            hide_usage = endpoint.usage_on_request and not request.usage_asked
            await answer_stream(call, endpoint, response, limits, model, hide_usage=hide_usage)
        else:
            await answer_whole(call, endpoint, response, limits, model)


def _require_model(principal: Principal, model: str) -> None:
    if not principal.may_call(model):
        raise NotPermitted(f"This key may not call the model '{model[:200]}'.", param="model")
