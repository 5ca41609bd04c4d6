"""What a connection to an existing server needs: where it is, and how it takes its key."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from app.providers.base import CredentialsModel, SettingsModel

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_ENDPOINTS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/messages", "/models")
_NOT_FOR_KEYS = frozenset(
    """
    host content-length content-type content-encoding transfer-encoding accept accept-encoding connection
    keep-alive te trailer upgrade expect cookie proxy-authorization proxy-connection user-agent
    """.split()
)


def _base_url(text: str) -> str:
    """The URL up to, and without, the endpoint's name. Which addresses it may lead to is not decided here."""
    if not text.isascii() or not text.isprintable() or any(character in text for character in ' \\"<>'):
        raise ValueError("must be a plain URL such as https://models.example.com/v1")
    if "?" in text or "#" in text:
        raise ValueError("must have no query and no fragment")
    scheme, authority, host = _read(text)
    if scheme not in {"http", "https"} or not host:
        raise ValueError("must begin with https:// (or http://) and a host")
    if "@" in authority:
        raise ValueError("must hold no user name or password; put the key into credentials.api_key")
    return _without_endpoint(text.rstrip("/"))


def _read(text: str) -> tuple[str, str, str | None]:
    """Scheme, authority and host; no host where the URL makes no sense."""
    try:
        parts = urlsplit(text)
        return parts.scheme.lower(), parts.netloc, parts.hostname if parts.port != 0 else None
    except ValueError:
        return "", "", None


def _without_endpoint(url: str) -> str:
    for endpoint in _ENDPOINTS:
        if url.endswith(endpoint):
            raise ValueError(f"must end before {endpoint}, for example {url.removesuffix(endpoint)}")
    return url


def _header_name(text: str) -> str:
    if not _TOKEN.fullmatch(text) or text.lower() in _NOT_FOR_KEYS:
        raise ValueError("must be the name of a header that can carry a key, such as Authorization or X-Api-Key")
    return text


def _scheme(text: str) -> str:
    if text and not _TOKEN.fullmatch(text):
        raise ValueError("must be one word such as Bearer, or empty to send the key alone")
    return text


def _path(text: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", text) or "/.." in text:
        raise ValueError("must be a path such as /models")
    return text


def _key(text: str) -> str:
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("must be printable ASCII without spaces around it")
    return text


class OpenAICompatibleSettings(SettingsModel):
    """Where the server is. `models_path` is appended to `base_url` to list what it serves."""

    base_url: Annotated[str, Field(max_length=2048), AfterValidator(_base_url)]
    auth_header: Annotated[str, AfterValidator(_header_name)] = "Authorization"
    auth_scheme: Annotated[str, AfterValidator(_scheme)] = "Bearer"
    models_path: Annotated[str, Field(max_length=256), AfterValidator(_path)] = "/models"


class OpenAICompatibleCredentials(CredentialsModel):
    """The server's key; None for a server that takes none."""

    api_key: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_key)] | None = None

    def header(self, settings: OpenAICompatibleSettings) -> tuple[str, str] | None:
        """Header name and whole value, or None where no key is needed."""
        if self.api_key is None:
            return None
        return settings.auth_header, f"{settings.auth_scheme} {self.api_key}".strip()
