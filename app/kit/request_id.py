"""Request ids: `x-request-id` is always ours; a client's own is kept beside it when it is sane.

A client's id is only ever stored, logged and returned, never used as a key, so two clients that
send the same one cannot disturb each other.
"""

from __future__ import annotations

import re

REQUEST_ID = b"x-request-id"
CLIENT_REQUEST_ID = b"x-client-request-id"

_SANE = re.compile(rb"[A-Za-z0-9._:/@=+-]{1,128}")


def sane_client_id(raw: bytes | None) -> str | None:
    """The client's `x-request-id` as text, or None when there is none or it is fit for neither log nor header."""
    if raw is None or not _SANE.fullmatch(raw):
        return None
    return raw.decode("ascii")
