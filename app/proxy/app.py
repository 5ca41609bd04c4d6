"""The data plane: everything under `/v1`, served from memory and from upstreams.

    dispatch(method, path) ──▶ handler ──▶ Calls.serve ──▶ a story: inference, models, refusal

Made by the lifespan, which also runs the loops beside it: `Follower.run`, `Heartbeat.run`,
`AccessLog.run`, `Relook.run`, `Routing.run`, `Metrics.watch_lag`, `Explaining.run`, and the ledger's own.
"""

from __future__ import annotations

from typing import Any

from app.errors import MethodNotAllowed, NotFound, NotSupported
from app.http1.exchange import Handler
from app.http1.pool import UpstreamPool
from app.proxy.access import AccessLog
from app.proxy.answer import answer_error
from app.proxy.attempts import Attempts
from app.proxy.authenticate import Authenticator, credentials
from app.proxy.call import Call
from app.proxy.calls import Calls, Story
from app.proxy.candidates import candidates_of
from app.proxy.counters import Counters
from app.proxy.dialect import CHAT, MESSAGES, Dialect
from app.proxy.directory import Directory
from app.proxy.endpoints import (
    ENDPOINTS,
    GET_MODEL,
    LIST_MODELS,
    METHODS,
    MODELS,
    PREFIX,
    UNKNOWN,
    dialect_of,
    is_stored_response,
    method_of,
)
from app.proxy.explaining import Explaining
from app.proxy.explanation import detail_of
from app.proxy.heartbeat import OpenStreams
from app.proxy.inference import Inference
from app.proxy.limits import ProxyLimits
from app.proxy.metering import Metering
from app.proxy.metrics import Metrics
from app.proxy.models import Models
from app.proxy.relook import Relook
from app.proxy.routing import Routing

_DEFAULT_LIMITS = ProxyLimits()


class DataPlane:
    """`dispatch` is handed to the server; `shutdown` ends what is open when the process must go.

    Without `metering` calls are neither limited nor written down, without `explaining` none is explained.
    """

    def __init__(
        self,
        directory: Directory,
        authenticator: Authenticator,
        pool: UpstreamPool,
        open_streams: OpenStreams,
        *,
        access_log: AccessLog | None = None,
        counters: Counters | None = None,
        limits: ProxyLimits = _DEFAULT_LIMITS,
        relook: Relook | None = None,
        routing: Routing | None = None,
        metering: Metering | None = None,
        explaining: Explaining | None = None,
    ) -> None:
        self.counters = counters or Counters()
        self._metering = metering
        self._explaining = explaining
        ended = None if explaining is None else self._ended
        self._calls = Calls(open_streams, self.counters, access_log or AccessLog(None), relook, ended)
        self.routing = routing or Routing(directory, open_streams, limits)
        self.metrics = Metrics(self.counters, self.routing, pool, lambda: self.open_streams_total, metering, explaining)
        self._authenticator = authenticator
        models = Models(authenticator, directory)
        self._handlers = {(METHODS[MODELS], MODELS): self._handler(LIST_MODELS, models.answer_list)}
        for endpoint in ENDPOINTS:
            attempts = Attempts(endpoint, directory, self._calls, self.routing, pool, limits, metering)
            story = Inference(endpoint, authenticator, self._calls, attempts, limits, metering)
            self._handlers[METHODS[endpoint.path], endpoint.path] = self._handler(
                endpoint.name, story, endpoint.dialect
            )
        self._get_model = self._handler(GET_MODEL, models.answer_one)
        self._refuse = {dialect: self._handler(UNKNOWN, self._refusal, dialect) for dialect in (CHAT, MESSAGES)}

    def dispatch(self, method: str, path: str) -> Handler | None:
        """Who serves this request; None when it is not the data plane's. The path is without its query."""
        found = self._handlers.get((method, path))
        if found is not None:
            return found
        if path != PREFIX and not path.startswith(f"{PREFIX}/"):
            return None
        return self._get_model if path not in METHODS and method == method_of(path) else self._refuse[dialect_of(path)]

    @property
    def open_streams_total(self) -> int:
        """Calls that have begun and not ended."""
        return self._calls.open_count

    async def shutdown(self, deadline_seconds: float) -> None:
        """Wait that long for the open calls; what is left ends with an error its caller sees."""
        await self._calls.shutdown(deadline_seconds)

    def _ended(self, call: Call) -> None:
        if self._explaining is not None:
            self._explaining.note(call, self._detail)

    def _detail(self, call: Call) -> dict[str, Any]:
        metering, candidates = self._metering, candidates_of(call, self.routing)
        if metering is None:
            return detail_of(call, candidates, (), None)
        return detail_of(call, candidates, metering.standing(call), metering.rates(call))

    def _handler(self, endpoint: str, story: Story, dialect: Dialect = CHAT) -> Handler:
        calls = self._calls
        return lambda exchange: calls.serve(exchange, endpoint, story, dialect)

    async def _refusal(self, call: Call) -> None:
        """There is no such operation: said only to somebody who has a key."""
        bare_key = call.dialect is MESSAGES
        call.principal = self._authenticator.identify(credentials(call.exchange, bare_key=bare_key))
        path = call.exchange.path
        method = method_of(path)
        if method is None and is_stored_response(path):
            raise NotSupported("Responses are not stored here: send the conversation with each POST /v1/responses.")
        if method is None:
            known = ", ".join(f"{method} {path}" for path, method in METHODS.items())
            raise NotFound(f"There is no {path[:200]} here. There is: {known}, GET {MODELS}/{{id}}.")
        wrong = MethodNotAllowed(f"{path[:200]} takes {method} only.")
        answer_error(call, wrong, headers=((b"allow", method.encode()),))
