"""What the ledger's tests share: tenants with limits, workers, and ledgers that run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.store.session import Store
from tests.ledger.support import Quotas, ready


@pytest.fixture
async def quotas(store: Store, tmp_path: Path) -> AsyncIterator[Quotas]:
    """A registry with one worker, and whatever the test adds; every ledger it opened is closed at the end."""
    opened = Quotas(store, tmp_path)
    await ready(store)
    yield opened
    await opened.aclose()
