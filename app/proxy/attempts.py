"""A call's attempts: the upstream is chosen, asked, and where that is safe another one is, until one has answered.

    choose ──▶ attempt ──▶ the head of an answer ──▶ it is the call's
     │ ▲         │
     │ └ line_up ├── nothing was sent     ┐ another target of the route, inside its budget; where there is none
     │           │                        ┘ and it refused the connection, the same once more
     ▼           ├── 429, 5xx but 501     ┐ another target of the route, inside its budget, where the body can be
  503, 429       ├── no head in time      ┘ sent again
                 └── broken after sending, not HTTP, 4xx, 501, 5xx about the request: the caller is told

A second attempt comes only before the first byte of an answer, and each target is tried once. What broke after the
request was sent may have been carried out; what we gave up ourselves, or was refused, is not being carried out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.domain.directory import RouteEntry
from app.errors import UpstreamFailed
from app.http1.exchange import Header
from app.http1.failures import UpstreamBroken, UpstreamTooSlow
from app.http1.pool import UpstreamPool, UpstreamResponse, request_lines
from app.kit.clock import monotonic
from app.proxy.affinity import key_of
from app.proxy.call import Call, Tried, upstream_request_id
from app.proxy.calls import Calls
from app.proxy.directory import Directory
from app.proxy.endpoints import Endpoint
from app.proxy.errors import is_about_the_request, names_usage_option, wait_asked
from app.proxy.limits import ProxyLimits
from app.proxy.metering import Metering
from app.proxy.relay import error_text
from app.proxy.request import AnyRequest
from app.proxy.resolve import CallTarget, resolve
from app.proxy.routing import Routing
from app.proxy.upstream import Upstream

_SEND_JSON: Header = (b"content-type", b"application/json")
_ASK_FOR_JSON: Sequence[Header] = (_SEND_JSON, (b"accept", b"application/json"))
_ASK_FOR_STREAM: Sequence[Header] = (_SEND_JSON, (b"accept", b"text/event-stream"))
_ACCEPT_ANY: Header = (b"accept", b"*/*")
_MAY_REFUSE_A_MEMBER = frozenset({400, 422})
_REASON_SECONDS = 1.0
"""How long the body of a 5xx is waited for before another target is asked."""
_BUSY_SECONDS = 1.0
"""What a 429 without Retry-After asks for."""
_NOT_THE_UPSTREAMS = frozenset({"upstream_address_refused", "upstream_dropped"})
"""Failures that are ours, and say nothing about the upstream."""


class Attempts:
    """Of the calls of one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        directory: Directory,
        calls: Calls,
        routing: Routing,
        pool: UpstreamPool,
        limits: ProxyLimits,
        metering: Metering | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._directory = directory
        self._calls = calls
        self._routing = routing
        self._health = routing.health
        self._pool = pool
        self._limits = limits
        self._metering = metering
        self._refusing_usage: dict[str, Upstream] = {}
        """By deployment: what turned out to refuse the question for usage; a changed deployment is asked again."""

    def choose(self, call: Call, request: AnyRequest, tenant_id: str) -> CallTarget | None:
        """Aim the call at a target that can take it now; None when some are only full, and it may `line_up`.

        Raises ModelNotFound, DeploymentNotRunning, and Unavailable or QuotaExceeded that say when to come again.
        """
        named = resolve(self._directory, tenant_id, request.model)
        if isinstance(named, RouteEntry):
            self._routing.note_call(named, call.exchange.started_at)
            call.affinity_key = key_of(request, named, tenant_id)
        return self._aim(call, named)

    async def line_up(self, call: Call, request: AnyRequest, tenant_id: str) -> CallTarget:
        """Wait for a place, and choose anew: what the name leads to may have changed. Raises as `choose` does."""
        since = monotonic()
        lines = self._routing.lines
        named = resolve(self._directory, tenant_id, request.model)
        target: CallTarget | None = None
        try:
            while target is None:
                left_seconds = since + lines.wait_seconds - monotonic()
                await lines.wait(self._routing.crowded(named), left_seconds)
                named = resolve(self._directory, tenant_id, request.model)
                target = self._aim(call, named)
        finally:
            call.queue_seconds = monotonic() - since
        return target

    async def send(self, call: Call, request: AnyRequest, target: CallTarget) -> UpstreamResponse:
        """The head of the answer that the call gets. Raises the last attempt's failure when there is none.

        One attempt more is free: without the question for usage, to an upstream that may have refused only that.
        """
        doubted: Upstream | None = None
        while True:
            call.attempts += 1
            began = monotonic()
            ask_usage = request.stream and doubted is None and self._asks_usage(request, target)
            try:
                response, not_now = await self._attempt(call, request, target, ask_usage=ask_usage)
            except (UpstreamBroken, UpstreamTooSlow) as failure:
                call.history += (Tried(target.deployment.id, monotonic() - began, error_code=failure.code),)
                call.sent = call.sent or failure.sent
                target = self._after_failure(call, request, target, failure)
                if self._metering is not None:
                    await self._metering.follow(call, target)
                continue
            call.sent = True
            if ask_usage and await self._may_refuse_usage(response):
                call.history += (_answered(target, response),)
                doubted = target.upstream
                continue
            if not_now and request.resendable:
                another = self._another(call, target)
                if another is not None:
                    call.history += (_answered(target, response),)
                    response.close()
                    target = another
                    continue
            if doubted is target.upstream and response.status_code == 200:
                self._refusing_usage[target.deployment.id] = doubted
            call.connect_seconds, call.upstream_seconds = response.connect_seconds, response.first_byte_seconds
            call.first_byte_seconds = call.seconds()
            call.response = response
            return response

    # Where to.

    def _aim(self, call: Call, named: CallTarget | RouteEntry) -> CallTarget | None:
        target = self._routing.choose(named, call.affinity_key)
        if target is not None:
            self._calls.aim(call, target)
        elif not self._routing.crowded(named):
            raise self._routing.refusal(named)
        return target

    def _after_failure(
        self, call: Call, request: AnyRequest, target: CallTarget, failure: UpstreamBroken | UpstreamTooSlow
    ) -> CallTarget:
        """Where to go after an attempt without an answer. Raises the failure."""
        given_up = failure.code == "upstream_first_byte_timeout" and request.resendable
        if failure.sent and not given_up:
            raise failure
        again = failure.code == "upstream_unreachable" and call.attempts == 1 and not self._health.is_broken(target)
        another = self._another(call, target, or_again=again)
        if another is None:
            raise failure
        return another

    def _another(self, call: Call, target: CallTarget, *, or_again: bool = False) -> CallTarget | None:
        """Another target of the route as it is now, else the same `or_again`, if the route's budget allows it.

        The call is aimed at what is returned.
        """
        if target.route is None:
            return target if or_again else None
        call.tried += (target.deployment.id,)
        route = self._directory.routes.entries.get(target.route.id)
        another = None if route is None else self._routing.choose(route, call.affinity_key, call.tried)
        another = another or (target if or_again else None)
        if another is None or not self._routing.may_retry(target.route, monotonic()):
            return None
        if another is not target:
            self._calls.aim(call, another)
        return another

    # One attempt.

    async def _attempt(
        self, call: Call, request: AnyRequest, target: CallTarget, *, ask_usage: bool
    ) -> tuple[UpstreamResponse, bool]:
        """The head of an answer, and whether it is about the upstream's state: another may do better."""
        upstream, health, deployment_id = target.upstream, self._health, target.deployment.id
        probing = deployment_id in health.troubled and health.begin(target)
        try:
            response = await self._pool.send(
                upstream.origin,
                b"%bx-request-id: %b\r\n" % (self._lines(call, request, upstream), call.request_id.encode()),
                request.body_for(target.served_model, ask_usage=ask_usage),
                self._limits.deadlines,
            )
            not_now = response.status_code >= 429 and await self._says_not_now(response)
        except (UpstreamBroken, UpstreamTooSlow) as failure:
            self._note_failure(target, failure, probing=probing)
            raise
        except BaseException as other:
            if probing:
                health.unanswered(target)
            if not isinstance(other, ValueError):
                raise
            message = "This deployment's upstream cannot be called as it is set up."
            raise UpstreamFailed(message, code="upstream_refused", detail=str(other), retryable=False) from other
        if deployment_id in health.troubled or not_now:
            self._note_answer(target, response, not_now=not_now)
        return response, not_now

    def _note_failure(self, target: CallTarget, failure: UpstreamBroken | UpstreamTooSlow, *, probing: bool) -> None:
        self._calls.counters.failed_attempts[failure.code or ""] += 1
        if failure.code not in _NOT_THE_UPSTREAMS:
            self._health.failed(target)
        elif probing:
            self._health.unanswered(target)

    def _note_answer(self, target: CallTarget, response: UpstreamResponse, *, not_now: bool) -> None:
        if not not_now:
            self._health.answered(target)
            return
        busy = response.status_code == 429
        self._calls.counters.failed_attempts["upstream_busy" if busy else "upstream_error"] += 1
        self._health.answered(target) if busy else self._health.failed(target)
        wait = wait_asked(response.header)
        if busy or wait is not None:
            self._health.busy(target, _BUSY_SECONDS if wait is None else wait)

    def _lines(self, call: Call, request: AnyRequest, upstream: Upstream) -> bytes:
        """The lines of the request's head, made once where they do not depend on the caller."""
        endpoint = self._endpoint
        if endpoint.media:
            return self._made_lines(upstream, ((b"content-type", request.content_type), _ACCEPT_ANY))
        asked = _ASK_FOR_STREAM if request.stream and endpoint.streams else _ASK_FOR_JSON
        if endpoint.passed_headers:
            passed = (header for header in call.exchange.headers if header[0] in endpoint.passed_headers)
            return self._made_lines(upstream, (*asked, *passed))
        key = (endpoint.operation, asked is _ASK_FOR_STREAM)
        lines = upstream.heads.get(key)
        if lines is None:
            lines = upstream.heads[key] = self._made_lines(upstream, asked)
        return lines

    def _made_lines(self, upstream: Upstream, headers: Sequence[Header]) -> bytes:
        path = upstream.path + self._endpoint.operation
        return request_lines(upstream.origin, "POST", path, (*upstream.headers, *headers))

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

    async def _says_not_now(self, response: UpstreamResponse) -> bool:
        """Whether an answer is about the upstream's state and not about the request: another may do better."""
        status_code = response.status_code
        if status_code < 500 or status_code == 501:
            return status_code == 429
        try:
            async with asyncio.timeout(_REASON_SECONDS):
                return not is_about_the_request(await error_text(response, self._limits))
        except TimeoutError:
            return True


def _answered(target: CallTarget, response: UpstreamResponse) -> Tried:
    """An answer that the caller does not get."""
    request_id = upstream_request_id(response)
    seconds, status_code = response.first_byte_seconds, response.status_code
    return Tried(target.deployment.id, seconds, status_code, upstream_request_id=request_id)
