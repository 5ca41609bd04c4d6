"""The two ways to be someone at ZStack: a session made by a login, or an AccessKey's signature.

A session lives for two hours by default and an account may have only so many of them, perhaps one. So a
process keeps one for each account, makes it once however many calls want it, and renews it when four
fifths of its life are over. Its life is the difference of the two dates in the login's answer: both are
the platform's, so neither its clock nor its zone matters. A login that was refused is not repeated for
a while, because ZStack locks accounts after several of them.

Sources: zstackio/zstack, `RestServer` and identity's global configs; captured requests of its Java SDK.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import format_datetime

from app.kit.clock import Monotonic, monotonic
from app.providers.errors import CredentialsRefused

DEFAULT_LIFE_SECONDS = 7200.0
REFUSED_SECONDS = 30.0
_RENEW_AT = 0.8
_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Login:
    """A session as the platform gave it; `life_seconds` counts from that moment."""

    session: str = field(repr=False)
    life_seconds: float = DEFAULT_LIFE_SECONDS


@dataclass(slots=True)
class _Account:
    """What is known of one account. `session` empty: none, or one that the platform does not know any more."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: str = field(default="", repr=False)
    renew_at: float = 0.0
    refused: CredentialsRefused | None = None
    refused_until: float = 0.0


class Sessions:
    """The sessions of this process, by account."""

    def __init__(self, clock: Monotonic = monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    async def get(self, account: str, login: Callable[[], Awaitable[Login]]) -> str:
        """The account's session; `login` is called when there is none, once at a time. Raises what it raises."""
        held = self._of(account)
        async with held.lock:
            now = self._clock()
            if held.session and now < held.renew_at:
                return held.session
            if held.refused is not None and now < held.refused_until:
                raise _again(held.refused)
            try:
                made = await login()
            except CredentialsRefused as refused:
                held.session, held.refused, held.refused_until = "", refused, now + REFUSED_SECONDS
                raise
            held.session, held.renew_at = made.session, now + made.life_seconds * _RENEW_AT
            held.refused = None
            return held.session

    def forget(self, account: str, session: str | None = None) -> None:
        """The platform does not know `session` any more; a newer one stays. Without one, whichever it is."""
        held = self._accounts.get(account)
        if held is not None and session in {None, held.session}:
            held.session = ""

    def _of(self, account: str) -> _Account:
        while len(self._accounts) >= _KEPT and account not in self._accounts:
            self._accounts.pop(next(iter(self._accounts)))
        return self._accounts.setdefault(account, _Account())


def account_key(*parts: str) -> str:
    """Names an account without telling its password."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def signed_headers(key_id: str, secret: str, *, method: str, path: str, now: datetime) -> dict[str, str]:
    """`date` and `authorization` of an AccessKey: base64(HMAC-SHA1(secret, method, date and path by lines)).

    `path` is the decoded one from `/v1` on, without the query. `now` carries the installation's zone.
    """
    date = http_date(now)
    text = f"{method}\n{date}\n{path}"
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()
    return {"date": date, "authorization": f"ZStack {key_id}:{base64.b64encode(digest).decode()}"}


def http_date(moment: datetime) -> str:
    """`EEE, dd MMM yyyy HH:mm:ss <zone id>`; the zone as Java's time zone database names it."""
    return f"{format_datetime(moment)[:-6]} {_zone_id(moment)}"


def _zone_id(moment: datetime) -> str:
    offset = moment.utcoffset()
    minutes = int(offset.total_seconds()) // 60 if offset is not None else 0
    if minutes % 60:
        return f"GMT{timezone(offset).tzname(None)[3:]}" if offset is not None else "Etc/UTC"
    return f"Etc/GMT{-minutes // 60:+d}" if minutes else "Etc/UTC"  # POSIX counts west of Greenwich


def _again(refused: CredentialsRefused) -> CredentialsRefused:
    return CredentialsRefused(
        refused.message,
        code=refused.code,
        provider_request_id=refused.provider_request_id,
        provider_status_code=refused.provider_status_code,
    )
