"""The server's settings: for one small gateway on one host.

They go on the command line, where they win over postgresql.conf, so that a new release can change
them for clusters that exist.
"""

from __future__ import annotations

from collections.abc import Mapping

_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # A client that hangs in a transaction must not hold its locks for ever; nor one that left, its query.
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "5s",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    # Statements and the DETAIL of an error hold values of rows.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def server_options(*, durable: bool) -> Mapping[str, str]:
    """Without `durable` a crash of the machine may lose the cluster: tests only."""
    return _OPTIONS if durable else _OPTIONS | _NOT_DURABLE
