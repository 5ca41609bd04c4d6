"""Who asks: sessions and AccessKey signatures, checked from the request as the platform does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta, timezone

from starlette.requests import Request

from tests.emulators.zstack.account import Account
from tests.emulators.zstack.refusal import INVALID_SESSION, Plain, Refusal

_SKEW_SECONDS = 900
_DATE = re.compile(r"\w{3}, (\d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2}) (\S+)")


def check_credentials(account: Account, request: Request) -> bool:
    """Raises Plain for headers that are no credentials, Refusal for a wrong AccessKey. False for a session that is
    not known: whether that is told now or by the job is the caller's to say."""
    header = request.headers.get("authorization")
    if header is None:
        raise Plain(400, "missing header 'Authorization'")
    if header.startswith("OAuth"):
        return account.knows(header.removeprefix("OAuth").strip())
    if header.startswith("ZStack"):
        _check_access_key(account, request, header.removeprefix("ZStack").strip())
        return True
    raise Plain(400, "Authorization type must be 'OAuth'")


def check_login(account: Account, given: object) -> None:
    expected = hashlib.sha512(account.password.encode()).hexdigest()
    name, password = (given.get(one) for one in ("accountName", "password")) if isinstance(given, dict) else ("", "")
    if account.revoked or name != account.account_name or password != expected:
        raise Refusal("ID.1000", f"wrong account name or password for {name}")


def invalid_session() -> Refusal:
    return Refusal(INVALID_SESSION.code, INVALID_SESSION.details)


def _check_access_key(account: Account, request: Request, given: str) -> None:
    key_id, colon, signature = given.partition(":")
    if not colon or ":" in signature:
        raise Plain(400, "accessKey format is 'ZStack AccessKeyId:Signature'")
    date = request.headers.get("date")
    if date is None:
        raise Plain(400, "'Date' must be incuded in request header")
    if abs(account.wall() - _moment(date)) > _SKEW_SECONDS:
        raise Plain(403, "requestTimeTooSkewed")
    path = request.url.path.removeprefix("/zstack")
    text = f"{request.method}\n{date}\n{path}".encode()
    mine = base64.b64encode(hmac.new(account.access_key_secret.encode(), text, hashlib.sha1).digest()).decode()
    if account.revoked or key_id != account.access_key_id or mine != signature:
        raise Refusal("ID.1000", f"access key {key_id} and its signature do not match")


def _moment(date: str) -> float:
    found = _DATE.fullmatch(date)
    if found is None:
        raise Plain(400, "'Date' format error, correct format is 'EEE, dd MMM yyyy HH:mm:ss z'")
    return datetime.strptime(found[1], "%d %b %Y %H:%M:%S").replace(tzinfo=_zone(found[2])).timestamp()


def _zone(name: str) -> timezone:
    """Zone ids as Java knows them; `Etc/GMT-8` is eight hours east."""
    if name in {"Etc/UTC", "UTC", "GMT"}:
        return UTC
    etc = re.fullmatch(r"Etc/GMT([+-])(\d{1,2})", name)
    if etc:
        return timezone(timedelta(hours=int(etc[2]) * (-1 if etc[1] == "+" else 1)))
    plain = re.fullmatch(r"GMT([+-])(\d{2}):(\d{2})", name)
    if plain:
        return timezone((1 if plain[1] == "+" else -1) * timedelta(hours=int(plain[2]), minutes=int(plain[3])))
    raise Plain(400, "'Date' format error, correct format is 'EEE, dd MMM yyyy HH:mm:ss z'")
