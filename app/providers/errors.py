"""What may escape a provider: ProviderErrors only, each saying what the reconciler may conclude.

    ProviderError                effect   meaning
    ├── ProviderRefused          none     the platform said no; trying the same again is pointless
    │   ├── CredentialsRefused   none     401/403: the connection, not the deployment, is wrong
    │   └── ProviderMissing      none     the platform does not know this deployment
    ├── ProviderBusy             none     not now (busy with this deployment, briefly away): wait and try again
    │   └── ProviderThrottled    none     429: the whole account asks too often, whoever asks for it
    └── ProviderUnclear          unknown  lost answer, timeout after send, 5xx: it may have happened

The distinction that money hangs on is `effect`: only `unknown` leaves a create's outcome open.
`message` is shown to tenants: the platform's own words, shortened, with no credential in them.
"""

from __future__ import annotations

from app.errors import UpstreamFailed

_MESSAGE_LIMIT = 1_000


class ProviderError(UpstreamFailed):
    """Base. `provider_request_id` is the platform's, for its support; None where it gave none."""

    code = "provider_error"
    retryable = False
    effect_unknown = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        provider_request_id: str | None = None,
        provider_status_code: int | None = None,
        detail: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message[:_MESSAGE_LIMIT], code=code, detail=detail, retry_after_seconds=retry_after_seconds)
        self.provider_request_id = provider_request_id
        self.provider_status_code = provider_status_code


class ProviderRefused(ProviderError):
    code = "provider_refused"


class CredentialsRefused(ProviderRefused):
    code = "credentials_refused"


class ProviderMissing(ProviderRefused):
    code = "provider_missing"


class ProviderBusy(ProviderError):
    code = "provider_busy"
    retryable = True


class ProviderThrottled(ProviderBusy):
    code = "provider_throttled"


class ProviderUnclear(ProviderError):
    code = "provider_unclear"
    retryable = True
    effect_unknown = True


def throttle_seconds(error: Exception, *, estimate_seconds: float) -> float | None:
    """How long nobody should call the account's platform after this error; None where it was no throttle.

    A platform that is busy and names a wait means the account too; one that throttles without naming a
    wait gets our estimate.
    """
    if not isinstance(error, ProviderBusy):
        return None
    if isinstance(error, ProviderThrottled):
        return error.retry_after_seconds or estimate_seconds
    return error.retry_after_seconds
