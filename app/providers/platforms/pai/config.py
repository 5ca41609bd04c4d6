"""What a connection to Alibaba PAI needs: a region, perhaps a workspace, and an AccessKey.

Two APIs are spoken: ModelGallery (what can be deployed) and EAS (what is deployed), each with a host
per region. The vendor's lists of regions differ (gallery: cn-guangzhou, cn-wulanchabu, …; EAS:
cn-zhangjiakou, ap-south-1, …), so a region is checked for its form only. For a region outside its
list the EAS SDK 7.0.0 falls back to `eas.{region}…`, which is no documented host; we never do.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from app.providers._alibaba.acs3 import AccessKey
from app.providers.base import CredentialsModel, SettingsModel

GalleryVersion = Literal["2025-06-30", "2026-06-03"]


def _base_url(text: str) -> str:
    """A host and perhaps a path, without a query. Which addresses it may lead to is not decided here."""
    if not text.isascii() or not text.isprintable() or any(character in text for character in ' \\"<>?#@'):
        raise ValueError("must be a plain URL such as https://pai-eas.cn-hangzhou.aliyuncs.com")
    if not _has_host(text):
        raise ValueError("must begin with https:// (or http://) and a host")
    return text.rstrip("/")


def _has_host(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme.lower() in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _key(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII without spaces")
    return text


BaseUrl = Annotated[str, Field(max_length=2048), AfterValidator(_base_url)]
Secret = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_key)]


class PaiSettings(SettingsModel):
    """Where the account is.

    `base_url` replaces both hosts, `gallery_base_url` and `eas_base_url` one each. `gallery_version` is
    the API that lists models; deployable specs come from 2026-06-03, which alone has them. `endpoint`
    chooses which of a service's addresses is called. `endpoint_scheme` https turns the vendor's
    `http://` addresses into `https://`, as a token must not travel in the clear; `as_given` leaves them.
    """

    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z0-9]{1,20}){1,4}$")] = "cn-hangzhou"
    base_url: BaseUrl | None = None
    gallery_base_url: BaseUrl | None = None
    eas_base_url: BaseUrl | None = None
    workspace_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    gallery_version: GalleryVersion = "2025-06-30"
    endpoint: Literal["internet", "intranet"] = "internet"
    endpoint_auth: Literal["token", "bearer"] = "token"
    endpoint_scheme: Literal["https", "as_given"] = "https"

    @property
    def gallery_url(self) -> str:
        return self.gallery_base_url or self.base_url or f"https://paimodelgallery.{self.region}.aliyuncs.com"

    @property
    def eas_url(self) -> str:
        return self.eas_base_url or self.base_url or f"https://pai-eas.{self.region}.aliyuncs.com"


class PaiCredentials(CredentialsModel):
    """An AccessKey pair of the account or of a RAM user; `security_token` with keys lent by STS."""

    access_key_id: Secret
    access_key_secret: Secret
    security_token: Secret | None = None

    @property
    def key(self) -> AccessKey:
        return AccessKey(self.access_key_id, self.access_key_secret, self.security_token)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must stay out of messages."""
        return tuple(one for one in (self.access_key_secret, self.security_token, self.access_key_id) if one)
