"""What an AlayaNeW connection needs: the key pair, and where its services are put."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from app.providers.base import CredentialsModel, SettingsModel

DEFAULT_BASE_URL = "https://api.alayanew.com"
_KEY_PART = re.compile(r"[!-+\--~]+")  # printable ASCII without space and comma, which end a part of the header
_WORD = re.compile(r"[!-~]+")


def _base_url(text: str) -> str:
    """Without the last slash; which addresses it may lead to is decided where it is stored and on connect."""
    if not _WORD.fullmatch(text):
        raise ValueError(f"must be a plain URL such as {DEFAULT_BASE_URL}")
    return text.rstrip("/")


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError("must be printable ASCII without spaces")
    return text


def _key_part(text: str) -> str:
    if not _KEY_PART.fullmatch(text):
        raise ValueError("must be printable ASCII without spaces and commas")
    return text


Word = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_word)]
KeyPart = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_key_part)]


class AlayaNewSettings(SettingsModel):
    """Placement of new services: container cluster (`vks_id`), its `namespace`, the GPU where a deployment names
    none. `aidc_id` is the data centre whose models are listed; without it, those of all data centres."""

    base_url: Annotated[str, Field(max_length=2048), AfterValidator(_base_url)] = DEFAULT_BASE_URL
    aidc_id: Word | None = None
    vks_id: Word | None = None
    namespace: Word = "default"
    gpu_type: Word | None = None


class AlayaNewCredentials(CredentialsModel):
    """An "Open API Key". There is no digest: both parts travel in every request, so the header is a password."""

    access_key: KeyPart
    secret_key: KeyPart

    def header(self) -> str:
        """The whole `Authorization` value (vendor's deployment detail page, 2025-07-22)."""
        return f"plain Credential={self.access_key},Signature={self.secret_key}"
