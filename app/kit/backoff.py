"""Exponential backoff with full jitter, as a pure function of the failure count."""

from __future__ import annotations

import random


def delay_seconds(failures: int, *, base_seconds: float = 1.0, cap_seconds: float = 300.0) -> float:
    """How long to wait after that many failures in a row: between half and all of base x 2^(n-1)."""
    ceiling: float = min(cap_seconds, base_seconds * 2 ** min(max(failures - 1, 0), 32))
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
