"""Settings: what must not be seen is not seen."""

from __future__ import annotations

import base64
import os

from app.settings import Settings


def test_no_repr_tells_a_secret() -> None:
    """Not the database's password either, which is part of its URL."""
    key = base64.b64encode(os.urandom(32)).decode()
    environment = {
        "MODELPORT_ADMIN_KEY": "an-admin-key-that-nobody-may-read-0123456789",
        "MODELPORT_DATABASE_URL": "postgresql://modelport:hunter22@db.example.com/modelport",
        "MODELPORT_DATABASE_DIRECT_URL": "postgresql://modelport:hunter33@db.example.com/modelport",
        "MODELPORT_MASTER_KEYS": f"k1:{key}",
    }
    settings = Settings.from_environment(environment)
    assert settings.database.url == environment["MODELPORT_DATABASE_URL"]
    told = repr(settings)
    for secret in ("an-admin-key", "hunter22", "hunter33", key, repr(base64.b64decode(key))):
        assert secret not in told
