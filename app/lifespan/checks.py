"""What must be right before a server is started: each failure is one line that says what to do."""

from __future__ import annotations

from app.lifespan.files import embedded_master_key, node_id, prepare_data_dir, read_bootstrap
from app.providers.local_host import LocalHost, LocalHostError
from app.providers.local_loader import load_local_host
from app.settings import Settings, SettingsError, inherited_environment


class StartRefused(Exception):
    """`str()` is the line."""


def check_start(settings: Settings) -> None:
    """Data directory, node id, keys and engines file. Raises StartRefused."""
    try:
        prepare_data_dir(settings.host.data_dir)
        node_id(settings.host.data_dir)
        read_bootstrap(settings.host.data_dir)
        local_host(settings)
        if settings.database.url is None:
            embedded_master_key(settings.host.data_dir)
    except (SettingsError, LocalHostError) as wrong:
        raise StartRefused(str(wrong)) from None


def local_host(settings: Settings) -> LocalHost:
    """What this node may run itself. Raises LocalHostError."""
    return load_local_host(
        engines_file=settings.host.local_engines,
        data_dir=settings.host.data_dir,
        node_id=node_id(settings.host.data_dir),
        advertise_host=settings.host.advertise_host,
        environment=inherited_environment(),
    )
