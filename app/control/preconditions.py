"""ETags and If-Match: a writer may say which version it has read."""

from __future__ import annotations

from starlette.requests import Request

from app.errors import PreconditionFailed


def etag_of(version: int | str) -> str:
    """A strong ETag: a resource's version changes with everything that is shown of it."""
    return f'"{version}"'


def check_if_match(request: Request, version: int | str) -> None:
    """Raises PreconditionFailed when If-Match is there and names another version (RFC 9110, 13.1.1)."""
    sent = request.headers.getlist("if-match")
    if not sent:
        return
    named = {tag.strip() for header in sent for tag in header.split(",")}
    if named != {"*"} and etag_of(version) not in named:
        raise PreconditionFailed(
            "The resource has changed since you read it. Read it again, and send its ETag in If-Match."
        )
