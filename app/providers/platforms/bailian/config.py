"""What a connection to Bailian needs: which region or address, which workspace, and an API key.

The deployment API is documented for two regions, Beijing (help.aliyun.com) and Singapore
(alibabacloud.com), and a key is bound to its own. Whether it works on the newer hosts
`{workspace}.{region}.maas.aliyuncs.com` is not documented; `base_url` leads there for who wants to
try. Sources and dates of these facts: `docs/providers/bailian.md`.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from app.providers.base import CredentialsModel, SettingsModel

_HOSTS = {"cn-beijing": "https://dashscope.aliyuncs.com", "ap-southeast-1": "https://dashscope-intl.aliyuncs.com"}
_ENDINGS = ("/api/v1", "/compatible-mode/v1")


def _origin(text: str) -> str:
    """The URL without the ending that SDKs want; both APIs are below what is left."""
    if not text.isascii() or not text.isprintable() or any(character in text for character in ' \\"<>?#@'):
        raise ValueError("must be a plain URL such as https://dashscope.aliyuncs.com")
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
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be printable ASCII without spaces")
    return text


class BailianSettings(SettingsModel):
    """Where the account is. `base_url` replaces the region's host; `/api/v1` at its end may be left out.

    `template_field` is the name under which a template's id is sent: the vendor's current pages say
    `deploy_spec`, its older ones and its classic SDK `template_id`.
    """

    region: Literal["cn-beijing", "ap-southeast-1"] = "cn-beijing"
    base_url: Annotated[str, Field(max_length=2048), AfterValidator(_origin)] | None = None
    workspace_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] | None = None
    template_field: Literal["deploy_spec", "template_id"] = "deploy_spec"

    @property
    def origin(self) -> str:
        return self.base_url or _HOSTS[self.region]

    @property
    def api_url(self) -> str:
        """Where deployments are managed."""
        return f"{self.origin}/api/v1"

    @property
    def service_url(self) -> str:
        """Where every deployment of the account is called, told apart by the model's name."""
        return f"{self.origin}/compatible-mode/v1"

    @property
    def workspace_headers(self) -> dict[str, str]:
        """What goes with every request of a sub-workspace, to manage and to call."""
        return {} if self.workspace_id is None else {"x-dashscope-workspace": self.workspace_id}


class BailianCredentials(CredentialsModel):
    """An API key of Model Studio. It is the account's: it manages, and it calls every deployment."""

    api_key: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_key)]

    @property
    def bearer(self) -> str:
        return f"Bearer {self.api_key}"
