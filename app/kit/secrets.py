"""Secrets at rest: envelopes that open only where they were made, and api keys as keyed hashes.

    master keys (operator) ──HKDF label per purpose──▶ sub-keys ──AES-256-GCM, AAD = place──▶ sealed bytes

- A sealed value is bound to its place (purpose, tenant, table, row, column): moved to another row
  or tenant it does not open. The newest master key seals, every known one opens.
- An api key is `mp_` + 12 characters of public id + 43 of secret (256 bits) + 6 of CRC-32, all
  base62. The CRC lets junk be refused, and leaked keys be found by scanners, without a look-up. At
  rest there is HMAC-SHA256 of the whole key under a pepper; random keys need no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from typing_extensions import override

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KNOWN = frozenset(_BASE62)
_PREFIX = "mp_"
_PUBLIC, _SECRET, _CRC = 12, 43, 6
KEY_LENGTH = len(_PREFIX) + _PUBLIC + _SECRET + _CRC
_FORMAT, _NONCE_BYTES = b"\x01", 12


class UnsealError(Exception):
    """A sealed value does not open: unknown master key, damaged, or not from this place."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value belongs; part of its authentication, not stored with it."""

    purpose: str
    tenant_id: str | None
    table: str
    row_id: str
    column: str

    def aad(self) -> bytes:
        parts = (self.purpose, self.tenant_id or "", self.table, self.row_id, self.column)
        return b"".join(len(part.encode()).to_bytes(2) + part.encode() for part in parts)


class Keyring:
    """The master keys, newest first, and the sub-keys derived from them."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        if not keys:
            raise ValueError("a keyring needs at least one master key")
        self._keys = dict(keys)
        self._newest = keys[0][0]
        self._derived: dict[tuple[str, str], AESGCM] = {}

    @override
    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    def seal(self, plain: bytes, place: Place) -> bytes:
        """format ‖ length of key id ‖ key id ‖ nonce ‖ ciphertext and tag"""
        nonce = os.urandom(_NONCE_BYTES)
        name = self._newest.encode()
        cipher = self._cipher(self._newest, place.purpose).encrypt(nonce, plain, place.aad())
        return _FORMAT + len(name).to_bytes(1) + name + nonce + cipher

    def unseal(self, sealed: bytes, place: Place) -> bytes:
        """Raises UnsealError; the reason is not told, it would only help an attacker."""
        if sealed[:1] != _FORMAT or len(sealed) < 2:
            raise UnsealError("unknown format")
        end = 2 + sealed[1]
        key_id, nonce = sealed[2:end].decode("utf-8", "replace"), sealed[end : end + _NONCE_BYTES]
        if key_id not in self._keys:
            raise UnsealError(f"master key {key_id!r} is not among MODELPORT_MASTER_KEYS")
        try:
            return self._cipher(key_id, place.purpose).decrypt(nonce, sealed[end + _NONCE_BYTES :], place.aad())
        except (InvalidTag, ValueError):
            raise UnsealError(f"does not open: {place.table}.{place.column}") from None

    def _cipher(self, key_id: str, purpose: str) -> AESGCM:
        found = self._derived.get((key_id, purpose))
        if found is None:
            info = b"modelport/v1/" + purpose.encode()
            found = AESGCM(HKDF(SHA256(), 32, None, info).derive(self._keys[key_id]))
            self._derived[key_id, purpose] = found
        return found


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner holds it; only shown in the answer that made it."""

    public_id: str
    text: str = field(repr=False)

    @property
    def display_prefix(self) -> str:
        return _PREFIX + self.public_id


def new_api_key() -> ApiKey:
    public_id = "".join(secrets.choice(_BASE62) for _ in range(_PUBLIC))
    head = _PREFIX + public_id + _base62(secrets.randbits(256), _SECRET)
    return ApiKey(public_id, head + _crc(head))


def parse_api_key(text: str) -> ApiKey | None:
    """The key, or None for anything that cannot be one; no secret is compared here."""
    if len(text) != KEY_LENGTH or not text.startswith(_PREFIX) or not _KNOWN.issuperset(text[3:]):
        return None
    if _crc(text[:-_CRC]) != text[-_CRC:]:
        return None
    return ApiKey(text[len(_PREFIX) : len(_PREFIX) + _PUBLIC], text)


def key_digest(pepper: bytes, key_text: str) -> bytes:
    """HMAC-SHA256 of the whole key, 32 bytes: what is stored, and compared in full."""
    return hmac.digest(pepper, key_text.encode(), "sha256")


def same_digest(left: bytes, right: bytes) -> bool:
    return hmac.compare_digest(left, right)


def new_pepper() -> bytes:
    return os.urandom(32)


def new_secret_text(size_bytes: int) -> str:
    """A random text that nobody guesses."""
    return secrets.token_urlsafe(size_bytes)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _crc(head: str) -> str:
    return _base62(zlib.crc32(head.encode()), _CRC)


def _base62(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
