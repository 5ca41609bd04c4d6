"""Making a new cluster: aside, then renamed, so that whatever ends us half-way leaves a whole cluster or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from app.store.embedded.binaries import Binaries, run
from app.store.embedded.layout import Layout, refuse_full_disk, refuse_other_major

_NEEDED_BYTES = 256 << 20  # a fresh one has 39 MiB (PostgreSQL 18.4), its write-ahead log grows to 128
_TIMEOUT_SECONDS = 300.0


def create_cluster_if_missing(
    layout: Layout, binaries: Binaries, *, durable: bool, report: Callable[[str], None]
) -> None:
    """Needs start.lock. Raises EmbeddedPostgresError; OSError when the directory cannot be written."""
    if layout.has_cluster():
        return
    refuse_other_major(layout)
    refuse_full_disk(layout, needed_bytes=_NEEDED_BYTES)
    report(f"creating the database (PostgreSQL {binaries.major})")
    prefix = f".postgres-{layout.major}-"
    _remove_leftovers(layout.root, prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=layout.root, ignore_cleanup_errors=True) as aside:
        made = Path(aside) / "cluster"
        _initdb(made, binaries, durable=durable)
        made.rename(layout.cluster)
    _sync_directory(layout.root)


def _remove_leftovers(root: Path, prefix: str) -> None:
    # Errors ignored: an initdb whose parent was killed may still be writing there; the next creation clears it.
    for leftover in root.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _initdb(directory: Path, binaries: Binaries, *, durable: bool) -> None:
    arguments = ["-D", str(directory), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]
    if not durable:
        arguments.append("--no-sync")
    command = binaries.server_command("initdb", *arguments)
    run(command, f"create the database in {directory.parent.parent}", timeout_seconds=_TIMEOUT_SECONDS)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
