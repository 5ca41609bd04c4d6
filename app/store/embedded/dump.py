"""`modelport backup`: the embedded database and the keys that its secrets need, in one new directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from app.store.embedded.binaries import find_binaries, run
from app.store.embedded.errors import EmbeddedPostgresError, plain_file_errors
from app.store.embedded.layout import Layout, refuse_other_major
from app.store.embedded.postgres import EmbeddedPostgres

DUMP_NAME = "modelport.dump"


def backup(data_dir: Path, destination: Path, *, pg_bin_dir: Path | None = None, key_files: Sequence[str]) -> Path:
    """Write a consistent copy into the new directory `destination` (0700, files 0600) and return its path.

    It holds `modelport.dump` for `pg_restore`, taken while others go on working, and the named
    `key_files` of the data directory, without which the encrypted columns cannot be read. It appears
    whole or not at all. Raises EmbeddedPostgresError, also when a key file is missing.
    """
    destination = destination.absolute()
    if os.path.lexists(destination):
        raise EmbeddedPostgresError(f"{destination} exists already: name a new directory for the backup")
    keys = [_key_file(data_dir, name) for name in key_files]
    _refuse_without_cluster(data_dir, pg_bin_dir)
    with plain_file_errors(destination.parent, otherwise="name another destination"):
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{destination.name}-", dir=destination.parent) as aside:
            made = Path(aside) / "backup"
            made.mkdir(mode=0o700)
            for key in keys:
                _copy_private(key, made / key.name)
            _dump(data_dir, made / DUMP_NAME, pg_bin_dir)
            made.rename(destination)
    return destination


def _key_file(data_dir: Path, name: str) -> Path:
    path = data_dir / name
    if Path(name).name != name or not path.is_file():
        raise EmbeddedPostgresError(f"no key file {name!r} in {data_dir}: a backup without it could not be read")
    return path


def _refuse_without_cluster(data_dir: Path, pg_bin_dir: Path | None) -> None:
    """Opening would make an empty cluster, and the backup of nothing would look like one."""
    layout = Layout(data_dir.resolve(), find_binaries(pg_bin_dir).major)
    if layout.has_cluster():
        return
    if layout.root.is_dir():
        refuse_other_major(layout)
    raise EmbeddedPostgresError(f"there is no embedded database in {data_dir}: set MODELPORT_DATA_DIR")


def _copy_private(source: Path, target: Path) -> None:
    with _new_private_file(target) as output, source.open("rb") as content:
        shutil.copyfileobj(content, output)


def _dump(data_dir: Path, target: Path, pg_bin_dir: Path | None) -> None:
    _new_private_file(target).close()
    with EmbeddedPostgres.open(data_dir, pg_bin_dir=pg_bin_dir) as postgres:
        arguments = ("--format=custom", f"--file={target}", f"--dbname={postgres.dsn}")
        run(find_binaries(pg_bin_dir).client_command("pg_dump", *arguments), "dump the database")


def _new_private_file(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
