"""The first admin key: made once, so that there is someone who can make the others."""

from __future__ import annotations

from pathlib import Path

from app.kit.secrets import new_api_key, parse_api_key
from app.lifespan.files import add_to_bootstrap, locked, read_bootstrap
from app.store.admin_keys import any_admin, ensure_admin
from app.store.peppers import Peppers
from app.store.session import Store


async def ensure_admin_key(store: Store, peppers: Peppers, data_dir: Path) -> str | None:
    """Make sure that some admin key works; the new key's text when one was made, to be shown once.

    The file is written before the row: a key that exists only in the file is put into the database
    at the next start, while one that existed only in the database would be lost to everybody.
    """
    with locked(data_dir):
        kept = parse_api_key(read_bootstrap(data_dir).get("admin_key", ""))
        async with store.write() as session:
            if kept is None and await any_admin(session):
                return None
            key = kept or new_api_key()
            if kept is None:
                add_to_bootstrap(data_dir, admin_key=key.text)
            await ensure_admin(session, peppers, key)
    return None if kept else key.text
