"""What a connection to ZStack AIOS needs: where it is, where services are put, and one of two kinds of credentials.

ZStack is a private cloud, so there is no address of the vendor's: `base_url` has no default. A time on its
wire has no zone (Gson's default form), and an installation that does not check zones compares a signed
request's date by the clock on its wall: `utc_offset` says which that is.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta, timezone
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.providers.base import CredentialsModel, SettingsModel

_ENDINGS = ("/zstack/v1", "/zstack")
_SHAPES = (("account_name", "password"), ("access_key_id", "access_key_secret"))

_TWO_SHAPES = "Give account_name and password, or access_key_id and access_key_secret"


def _base_url(text: str) -> str:
    """The URL up to `/zstack`. Which addresses it may lead to is not decided here."""
    if not text.isascii() or not text.isprintable() or any(character in text for character in ' \\"<>?#@'):
        raise ValueError("must be a plain URL such as http://zstack.example:8080")
    if not _has_host(text):
        raise ValueError("must begin with https:// (or http://) and a host")
    url = text.rstrip("/")
    for ending in _ENDINGS:
        url = url.removesuffix(ending)
    return url.rstrip("/")


def _has_host(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme.lower() in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _key(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text or ":" in text:
        raise ValueError("must be printable ASCII without spaces and colons")
    return text


Uuid = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
KeyPart = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_key)]
Secret = Annotated[str, Field(min_length=1, max_length=1024)]


class ZStackSettings(SettingsModel):
    """Placement of new services (`zone_uuid`, `cluster_uuid`, `l3_network_uuids`), their `type` where a deployment
    names no plan, which address of an instance is called (`endpoint`), and whether a deleted service's virtual
    machines are also taken out of the recycle bin (`expunge`)."""

    base_url: Annotated[str, Field(max_length=2048), AfterValidator(_base_url)]
    zone_uuid: Uuid | None = None
    cluster_uuid: Uuid | None = None
    l3_network_uuids: Annotated[list[Uuid], Field(max_length=64)] = Field(default_factory=list)
    type: Literal["VirtualMachine", "Container"] = "VirtualMachine"
    endpoint: Literal["external", "internal"] = "external"
    utc_offset: Annotated[str, Field(pattern=r"^[+-](0\d|1[0-4]):[0-5]\d$")] = "+08:00"
    expunge: bool = True

    @property
    def api_url(self) -> str:
        return f"{self.base_url}/zstack/v1"

    @property
    def zone(self) -> timezone:
        """The zone of the installation's own times."""
        hours, minutes = int(self.utc_offset[1:3]), int(self.utc_offset[4:])
        offset = timedelta(hours=hours, minutes=minutes)
        return timezone(-offset if self.utc_offset[0] == "-" else offset)


class ZStackCredentials(CredentialsModel):
    """An account's name and password, or an AccessKey pair of it; never both."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": list(shape)} for shape in _SHAPES]})

    account_name: Secret | None = None
    password: Secret | None = None
    access_key_id: KeyPart | None = None
    access_key_secret: KeyPart | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_shape(cls, given: Any) -> Any:
        if isinstance(given, dict):
            named = {name for name, value in given.items() if value is not None}
            if named not in [set(shape) for shape in _SHAPES]:
                raise PydanticCustomError("credentials_shape", _TWO_SHAPES)
        return given

    @property
    def password_hash(self) -> str:
        """What is sent in place of the password: its SHA-512 in lower-case hex. As good as the password."""
        return hashlib.sha512((self.password or "").encode()).hexdigest()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must stay out of messages."""
        hashed = self.password_hash if self.password else None
        return tuple(one for one in (hashed, self.password, self.access_key_secret, self.access_key_id) if one)
