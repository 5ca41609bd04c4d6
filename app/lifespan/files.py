"""What a node keeps in its data directory: its id, the embedded database's master key, the bootstrap keys.

Every file is written whole or not at all, with mode 0600, and the first of several processes that
start at once wins; the others read what it wrote.
"""

from __future__ import annotations

import base64
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.kit import json
from app.kit.ids import is_id, new_id
from app.settings import MasterKey, SettingsError

BOOTSTRAP = "bootstrap.json"
MASTER_KEYS = "master_keys"
NODE_ID = "node_id"
KEY_FILES = (BOOTSTRAP, MASTER_KEYS, NODE_ID)
"""What a backup must hold besides the database: without the master key its secrets cannot be opened."""


def prepare_data_dir(data_dir: Path) -> None:
    """Make the directory, private. Raises SettingsError when it cannot be written."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = data_dir / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as refused:
        raise SettingsError(
            f"the data directory {data_dir} cannot be written ({refused.strerror}): "
            "set MODELPORT_DATA_DIR to one that can"
        ) from None


def node_id(data_dir: Path) -> str:
    """This node's id, minted at the first start."""
    with locked(data_dir):
        path = data_dir / NODE_ID
        found = path.read_text().strip() if path.exists() else ""
        if is_id(found, "nod"):
            return found
        made = new_id("nod")
        write_private(path, made.encode())
        return made


def embedded_master_key(data_dir: Path) -> MasterKey:
    """The key-encryption key of the embedded database, made at the first start."""
    with locked(data_dir):
        path = data_dir / MASTER_KEYS
        if not path.exists():
            write_private(path, b"k1:" + base64.b64encode(os.urandom(32)))
        identifier, _, encoded = path.read_bytes().strip().partition(b":")
    with suppress(ValueError):
        secret = base64.b64decode(encoded, validate=True)
        if len(secret) == 32:
            return MasterKey(identifier.decode(), secret)
    raise SettingsError(f"{path} is damaged: restore it from a backup, its secrets cannot be opened without it")


def read_bootstrap(data_dir: Path) -> dict[str, str]:
    path = data_dir / BOOTSTRAP
    if not path.exists():
        return {}
    try:
        found: dict[str, str] = json.loads(path.read_bytes())
    except ValueError:
        raise SettingsError(f"{path} is damaged: restore it, or remove it and set MODELPORT_ADMIN_KEY") from None
    return found


def add_to_bootstrap(data_dir: Path, **keys: str) -> None:
    """Keep keys for the next start; call it under `locked`."""
    write_private(data_dir / BOOTSTRAP, json.dumps({**read_bootstrap(data_dir), **keys}))


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """One process of the host at a time."""
    with (data_dir / "files.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_private(path: Path, content: bytes) -> None:
    """Mode 0600, and whole even if the machine stops in the middle."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
