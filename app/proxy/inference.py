"""One call to a model, from its first byte to its last: the story of the data plane.

who ─▶ read ─▶ parse once ─▶ where ─▶ send ─▶ relay ─▶ settle (`calls`)
"""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.tenant import Principal
from app.errors import GatewayError, NotPermitted, UpstreamFailed
from app.http1.exchange import Exchange, Header
from app.http1.failures import UpstreamBroken, UpstreamTooSlow
from app.http1.pool import UpstreamPool, UpstreamResponse
from app.kit.request_id import REQUEST_ID
from app.proxy.authenticate import Authenticator, credentials
from app.proxy.call import Call
from app.proxy.calls import Calls
from app.proxy.dialect import MESSAGES
from app.proxy.directory import Directory
from app.proxy.endpoints import Endpoint
from app.proxy.errors import names_usage_option
from app.proxy.form_request import is_form, read_form
from app.proxy.limits import ProxyLimits
from app.proxy.model_name import ModelName
from app.proxy.relay import answer_media, answer_stream, answer_whole, error_text, refused_by_upstream
from app.proxy.request import AnyRequest, check_media_type, parse_request
from app.proxy.resolve import CallTarget, resolve
from app.proxy.upstream import Upstream

_ATTEMPTS = 2
_SEND_JSON: Header = (b"content-type", b"application/json")
_ASK_FOR_JSON: Sequence[Header] = (_SEND_JSON, (b"accept", b"application/json"))
_ASK_FOR_STREAM: Sequence[Header] = (_SEND_JSON, (b"accept", b"text/event-stream"))
_ACCEPT_ANY: Header = (b"accept", b"*/*")
_MAY_REFUSE_A_MEMBER = frozenset({400, 422})


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
        self._bare_key = endpoint.dialect is MESSAGES
        self._authenticator = authenticator
        self._directory = directory
        self._calls = calls
        self._pool = pool
        self._limits = limits
        self._refusing_usage: dict[str, Upstream] = {}
        """By deployment: what turned out to refuse the question for usage; a changed deployment is asked again."""

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
        self._calls.aim(call, resolve(self._directory, tenant_id, request.model))
        call.cancel_when_client_leaves()
        response = await self._send(call, request, tenant_id)
        try:
            await self._answer(call, request, response)
        finally:
            response.close()

    async def _send(self, call: Call, request: AnyRequest, tenant_id: str) -> UpstreamResponse:
        """The head of the upstream's answer; at most two attempts, the second only if nothing was sent.

        One more is free: without the question for usage, to an upstream that may have refused only that.
        """
        doubted: Upstream | None = None
        while True:
            call.attempts += 1
            target = call.target
            assert target is not None  # noqa: S101 - aimed by the story
            ask_usage = request.stream and doubted is None and self._asks_usage(request, target)
            try:
                response = await self._attempt(call, request, target, ask_usage=ask_usage)
            except (UpstreamBroken, UpstreamTooSlow) as failure:
                if failure.sent or call.attempts >= _ATTEMPTS:
                    raise
                self._calls.aim(call, self._next_target(target, failure, tenant_id, request.model))
                continue
            if ask_usage and await self._may_refuse_usage(response):
                doubted = target.upstream
                continue
            if doubted is target.upstream and response.status_code == 200:
                self._refusing_usage[target.deployment.id] = doubted
            call.connect_seconds, call.first_byte_seconds = response.connect_seconds, call.seconds()
            return response

    async def _attempt(
        self, call: Call, request: AnyRequest, target: CallTarget, *, ask_usage: bool
    ) -> UpstreamResponse:
        upstream = target.upstream
        try:
            return await self._pool.request(
                upstream.origin,
                "POST",
                upstream.path + self._endpoint.operation,
                (*upstream.headers, *self._headers(call.exchange, request), (REQUEST_ID, call.request_id.encode())),
                request.body_for(target.served_model, ask_usage=ask_usage),
                self._limits.deadlines,
            )
        except ValueError as wrong:
            message = "This deployment's upstream cannot be called as it is set up."
            raise UpstreamFailed(message, code="upstream_refused", detail=str(wrong), retryable=False) from wrong

    def _headers(self, exchange: Exchange, request: AnyRequest) -> Sequence[Header]:
        """What the body is, what may come back, and what this endpoint's callers tell its upstreams."""
        if self._endpoint.media:
            return (b"content-type", request.content_type), _ACCEPT_ANY
        asked = _ASK_FOR_STREAM if self._is_stream(request) else _ASK_FOR_JSON
        passed = self._endpoint.passed_headers
        return (*asked, *(header for header in exchange.headers if header[0] in passed)) if passed else asked

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

    def _asks_usage(self, request: AnyRequest, target: CallTarget) -> bool:
        """Whether to ask for the usage of this stream, whose caller did not."""
        if not self._endpoint.usage_on_request or request.usage_asked:
            return False
        upstream = target.upstream
        return upstream.stream_usage and self._refusing_usage.get(target.deployment.id) is not upstream

    async def _may_refuse_usage(self, response: UpstreamResponse) -> bool:
        """Whether this answer is about our own question; some servers repeat the whole request in every refusal."""
        if response.status_code not in _MAY_REFUSE_A_MEMBER:
            return False
        return names_usage_option(await error_text(response, self._limits))

    async def _answer(self, call: Call, request: AnyRequest, response: UpstreamResponse) -> None:
        endpoint, limits, name = self._endpoint, self._limits, ModelName(request.model)
        if response.status_code != 200:
            self._calls.refused(call, response.status_code)
            raise await refused_by_upstream(call, endpoint, response, limits)
        if endpoint.media:
            await answer_media(call, endpoint, response, limits, name)
        elif self._is_stream(request):
            hide_usage = endpoint.usage_on_request and not request.usage_asked
            await answer_stream(call, endpoint, response, limits, name, hide_usage=hide_usage)
        else:
            await answer_whole(call, endpoint, response, limits, name)

    def _is_stream(self, request: AnyRequest) -> bool:
        return request.stream and self._endpoint.streams


def _require_model(principal: Principal, model: str) -> None:
    if not principal.may_call(model):
        raise NotPermitted(f"This key may not call the model '{model[:200]}'.", param="model")
