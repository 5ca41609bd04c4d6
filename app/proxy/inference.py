"""One call to a model, from its first byte to its last: the story of the data plane.

who ─▶ read ─▶ parse once ─▶ where ─▶ send ─▶ relay ─▶ settle (`calls`)
"""

from __future__ import annotations

from app.domain.tenant import Principal
from app.errors import GatewayError, NotPermitted, UpstreamFailed
from app.http1.exchange import Header
from app.http1.failures import UpstreamBroken, UpstreamTooSlow
from app.http1.pool import UpstreamPool, UpstreamResponse
from app.kit.request_id import REQUEST_ID
from app.proxy.authenticate import Authenticator
from app.proxy.call import Call
from app.proxy.calls import Calls
from app.proxy.directory import Directory
from app.proxy.endpoints import Endpoint
from app.proxy.limits import ProxyLimits
from app.proxy.model_name import ModelName
from app.proxy.relay import answer_stream, answer_whole, refused_by_upstream
from app.proxy.request import CallRequest, check_media_type, parse_request
from app.proxy.resolve import CallTarget, resolve

_ATTEMPTS = 2
_ACCEPT_JSON: Header = (b"accept", b"application/json")
_ACCEPT_STREAM: Header = (b"accept", b"text/event-stream")


class Inference:
    """The story of one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        authenticator: Authenticator,
        directory: Directory,
        calls: Calls,
        pool: UpstreamPool,
        limits: ProxyLimits,
    ) -> None:
        self._endpoint = endpoint
        self._authenticator = authenticator
        self._directory = directory
        self._calls = calls
        self._pool = pool
        self._limits = limits

    async def __call__(self, call: Call) -> None:
        exchange = call.exchange
        call.principal = self._authenticator.identify(exchange.header(b"authorization"))
        tenant_id = self._authenticator.admit(call.principal)
        check_media_type(exchange.header(b"content-type"))
        request = parse_request(await exchange.read_body(self._limits.request_bytes))
        call.model = request.model
        _require_model(call.principal, request.model)
        self._calls.aim(call, resolve(self._directory, tenant_id, request.model))
        call.cancel_when_client_leaves()
        response = await self._send(call, request, tenant_id)
        try:
            await self._answer(call, request, response)
        finally:
            response.close()

    async def _send(self, call: Call, request: CallRequest, tenant_id: str) -> UpstreamResponse:
        """The head of the upstream's answer; at most two attempts, the second only if nothing was sent."""
        while True:
            call.attempts += 1
            assert call.target is not None  # noqa: S101 - aimed by the story
            try:
                response = await self._attempt(call, request, call.target)
            except (UpstreamBroken, UpstreamTooSlow) as failure:
                if failure.sent or call.attempts == _ATTEMPTS:
                    raise
                self._calls.aim(call, self._next_target(call.target, failure, tenant_id, request.model))
            else:
                call.connect_seconds, call.first_byte_seconds = response.connect_seconds, call.seconds()
                return response

    async def _attempt(self, call: Call, request: CallRequest, target: CallTarget) -> UpstreamResponse:
        upstream = target.upstream
        accept = _ACCEPT_STREAM if self._is_stream(request) else _ACCEPT_JSON
        try:
            return await self._pool.request(
                upstream.origin,
                "POST",
                upstream.path + self._endpoint.upstream_path,
                (*upstream.headers, accept, (REQUEST_ID, call.request_id.encode())),
                request.body_for(target.served_model),
                self._limits.deadlines,
            )
        except ValueError as wrong:
            message = "This deployment's upstream cannot be called as it is set up."
            raise UpstreamFailed(message, code="upstream_refused", detail=str(wrong), retryable=False) from wrong

    def _next_target(self, failed: CallTarget, failure: UpstreamFailed, tenant_id: str, model: str) -> CallTarget:
        """Another deployment of the route if there is one; else the same again, unless that would wait again."""
        if failed.route is not None:
            try:
                return resolve(self._directory, tenant_id, model, without=failed.deployment.id)
            except GatewayError:
                pass
        if isinstance(failure, UpstreamTooSlow) or failure.code != "upstream_unreachable":
            raise failure
        return failed

    async def _answer(self, call: Call, request: CallRequest, response: UpstreamResponse) -> None:
        assert call.target is not None  # noqa: S101 - aimed by the story
        secret = call.target.upstream.secret
        if response.status_code != 200:
            raise await refused_by_upstream(response, secret, self._limits)
        answer = answer_stream if self._is_stream(request) else answer_whole
        await answer(call, response, ModelName(request.model), secret, self._limits)

    def _is_stream(self, request: CallRequest) -> bool:
        return request.stream and self._endpoint.streams


def _require_model(principal: Principal, model: str) -> None:
    if not principal.may_call(model):
        raise NotPermitted(f"This key may not call the model '{model[:200]}'.", param="model")
