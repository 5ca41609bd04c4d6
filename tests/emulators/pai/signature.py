"""ACS3-HMAC-SHA256 checked from the bytes of a request, whatever headers its signer chose to sign."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote, unquote_to_bytes

from starlette.types import Scope

from tests.emulators.pai.account import Account
from tests.emulators.pai.refusal import Refusal

_AUTHORIZATION = re.compile(r"ACS3-HMAC-SHA256 Credential=([^,]+),SignedHeaders=([^,]+),Signature=([0-9a-f]{64})")
_SKEW_SECONDS = 900
_MUST_BE_SIGNED = (
    "host",
    "x-acs-action",
    "x-acs-version",
    "x-acs-date",
    "x-acs-signature-nonce",
    "x-acs-content-sha256",
)


def verify(account: Account, scope: Scope, body: bytes) -> None:
    """Raises Refusal unless the account's key signed exactly this request, now, and for the first time."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    match = _AUTHORIZATION.fullmatch(_one(headers, "authorization"))
    if match is None:
        raise Refusal(400, "IncompleteSignature", "The request signature does not conform to the standard.")
    key, signed, signature = match[1], match[2].split(";"), match[3]
    _check_key(account, key, headers)
    _check_signed(headers, signed)
    if signature != _signature(scope, headers, signed, body, account.access_key_secret):
        raise Refusal(400, "SignatureDoesNotMatch", "Specified signature is not matched with our calculation.")
    _check_time(account, headers)


def _check_key(account: Account, key: str, headers: dict[str, list[str]]) -> None:
    if key != account.access_key_id or account.revoked:
        raise Refusal(404, "InvalidAccessKeyId.NotFound", f"Specified access key {key} is not found.")
    if account.security_token != (_one(headers, "x-acs-security-token") or None):
        raise Refusal(400, "InvalidSecurityToken.Malformed", "Specified SecurityToken is malformed.")


def _check_signed(headers: dict[str, list[str]], signed: Sequence[str]) -> None:
    must = {*_MUST_BE_SIGNED, *(name for name in headers if name.startswith("x-acs-"))}
    must |= {"content-type"} & headers.keys()
    if not must <= set(signed) or list(signed) != sorted(signed) or not set(signed) <= headers.keys():
        raise Refusal(400, "IncompleteSignature", "A header that must be signed is not signed.")


def _check_time(account: Account, headers: dict[str, list[str]]) -> None:
    sent = datetime.strptime(_one(headers, "x-acs-date"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    if abs(account.wall() - sent.timestamp()) > _SKEW_SECONDS:
        raise Refusal(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")
    nonce = _one(headers, "x-acs-signature-nonce")
    if nonce in account.nonces:
        raise Refusal(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
    account.nonces.add(nonce)


def _signature(scope: Scope, headers: dict[str, list[str]], signed: Sequence[str], body: bytes, secret: str) -> str:
    payload = hashlib.sha256(body).hexdigest()
    if payload != _one(headers, "x-acs-content-sha256"):
        raise Refusal(400, "SignatureDoesNotMatch", "The body is not the one that was signed.")
    canonical = "".join(f"{name}:{','.join(sorted(headers[name]))}\n" for name in signed)
    path = scope["raw_path"].decode("ascii") or "/"
    parts = [scope["method"], path, _query(scope["query_string"]), canonical, ";".join(signed), payload]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return hmac.new(secret.encode(), f"ACS3-HMAC-SHA256\n{digest}".encode(), hashlib.sha256).hexdigest()


def _query(raw: bytes) -> str:
    """Taken apart and put together again the platform's way: `+` is a space, everything is encoded once."""
    pairs = [part.partition(b"=") for part in raw.split(b"&") if part]
    return "&".join(f"{name}={value}" for name, value in sorted((_again(k), _again(v)) for k, _, v in pairs))


def _again(text: bytes) -> str:
    return quote(unquote_to_bytes(text.replace(b"+", b" ")), safe="-_.~")


def _one(headers: dict[str, list[str]], name: str) -> str:
    values = headers.get(name, [])
    return values[0] if len(values) == 1 else ""
