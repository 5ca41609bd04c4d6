"""Settings: frozen values in groups, the only reader of the environment.

Every variable is declared once, beside its field, with its meaning and default; the README's table
and `modelport config check` are made from these declarations (`variables()`). Units are part of
the names. A wrong value is one clear line (`SettingsError`) and exit 2, never a traceback.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

PREFIX = "MODELPORT_"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(Exception):
    """A setting that cannot be used; `str()` is one line that names the variable and what to do."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A key-encryption key: 32 random bytes under an operator's id."""

    id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable as documentation shows it."""

    name: str
    meaning: str
    default: str


def variable(
    name: str, meaning: str, *, default: Any, shown: str, parse: Callable[[str], Any], secret: bool = False
) -> Any:
    """A settings field read from `MODELPORT_<name>`; `shown` is its default as documented. No `repr` tells a secret."""
    metadata = {"name": PREFIX + name, "meaning": meaning, "shown": shown, "parse": parse}
    return field(default=default, repr=not secret, metadata=metadata)


def _text(value: str) -> str:
    return value


def _path(value: str) -> Path:
    return Path(value).expanduser()


def _flag(value: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if value.lower() not in known:
        raise ValueError("expected true or false")
    return known[value.lower()]


def _positive(value: str) -> float:
    number = float(value)
    if not 0 < number < 1e9:
        raise ValueError("expected a number above 0")
    return number


def _share(value: str) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError("expected a number from 0 to 1")
    return number


def _words(value: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _networks(value: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(word) for word in _words(value))


def _postgres_url(value: str) -> str:
    if not value.startswith(("postgresql://", "postgres://")):
        raise ValueError("expected postgresql://user:password@host:port/database")
    return value


def _root_path(value: str) -> str:
    if not value.startswith("/") or value.endswith("/"):
        raise ValueError("expected a path such as /models, without a slash at its end")
    return value


def _level(value: str) -> str:
    if value.lower() not in {"debug", "info", "warning", "error"}:
        raise ValueError("expected debug, info, warning or error")
    return value.lower()


def _admin_key(value: str) -> str:
    if len(value) < 32 or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("expected at least 32 printable characters without spaces; try `openssl rand -hex 32`")
    return value


def _master_keys(value: str) -> tuple[MasterKey, ...]:
    keys = tuple(_master_key(word) for word in _words(value))
    if len({key.id for key in keys}) != len(keys):
        raise ValueError("two keys have the same id")
    return keys


def _master_key(word: str) -> MasterKey:
    identifier, _, encoded = word.partition(":")
    try:
        secret = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError("expected id:base64, comma-separated") from None
    if not identifier or len(identifier) > 32 or len(secret) != 32:
        raise ValueError("each key must be id:base64 of exactly 32 bytes; try `openssl rand -base64 32`")
    if len(set(secret)) < 12:
        raise ValueError(f"key {identifier!r} is not random; try `openssl rand -base64 32`")
    return MasterKey(identifier, secret)


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the registry is. No URL means the embedded cluster in the data directory."""

    url: str | None = variable(
        "DATABASE_URL",
        "`postgresql://…` of the registry; unset = embedded Postgres in the data directory, single host",
        default=None,
        shown="unset",
        parse=_postgres_url,
        secret=True,
    )
    direct_url: str | None = variable(
        "DATABASE_DIRECT_URL",
        "the same database past a pooler, for LISTEN, advisory locks and migrations",
        default=None,
        shown="unset",
        parse=_postgres_url,
        secret=True,
    )
    migrate_on_start: bool = variable(
        "MIGRATE_ON_START",
        "external database: migrate at start under an advisory lock; otherwise run `modelport migrate`",
        default=False,
        shown="`false`",
        parse=_flag,
    )
    pg_bin_dir: Path | None = variable(
        "PG_BIN_DIR",
        "other PostgreSQL binaries for the embedded cluster",
        default=None,
        shown="the wheel's",
        parse=_path,
    )


@dataclass(frozen=True, slots=True)
class HostSettings:
    """This node: its data directory and the models it may run itself."""

    data_dir: Path = variable(
        "DATA_DIR",
        "embedded database, `bootstrap.json` (0600), usage journal, node id; a volume in production",
        default=Path(".modelport"),
        shown="`.modelport`",
        parse=_path,
    )
    local_engines: Path | None = variable(
        "LOCAL_ENGINES",
        "TOML file of engines and model directories for the `local` provider",
        default=None,
        shown="built-in llama.cpp",
        parse=_path,
    )
    advertise_host: str = variable(
        "ADVERTISE_HOST",
        "address under which other nodes reach this node's local models",
        default="127.0.0.1",
        shown="127.0.0.1",
        parse=_text,
    )


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """Keys, and the addresses that connections may point at."""

    admin_key: str | None = variable(
        "ADMIN_KEY",
        "bootstrap platform-admin key; unset = made once, printed once, kept in `bootstrap.json`",
        default=None,
        shown="unset",
        parse=_admin_key,
        secret=True,
    )
    master_keys: tuple[MasterKey, ...] = variable(
        "MASTER_KEYS",
        "comma-separated `id:base64(32 bytes)` key-encryption keys, newest first; required with an external database",
        default=(),
        shown="made in the data directory for embedded",
        parse=_master_keys,
    )
    upstream_allow_cidrs: tuple[Network, ...] = variable(
        "UPSTREAM_ALLOW_CIDRS",
        "private ranges (and plain http to them) usable by connections that an admin made",
        default=(),
        shown="empty",
        parse=_networks,
    )
    allow_private_upstreams: bool = variable(
        "ALLOW_PRIVATE_UPSTREAMS",
        "loopback and RFC 1918 upstreams for everyone: demo and tests only",
        default=False,
        shown="`false`",
        parse=_flag,
    )


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """How fast and how patiently Modelport works."""

    poll_interval_seconds: float = variable(
        "POLL_INTERVAL_SECONDS", "reconcile pace", default=5.0, shown="5", parse=_positive
    )
    create_grace_seconds: float = variable(
        "CREATE_GRACE_SECONDS",
        'how long a platform\'s "not found" after create is not believed',
        default=30.0,
        shown="30",
        parse=_positive,
    )
    drain_timeout_seconds: float = variable(
        "DRAIN_TIMEOUT_SECONDS", "SIGTERM grace for open streams", default=60.0, shown="60", parse=_positive
    )
    explain_hours: float = variable(
        "EXPLAIN_HOURS", "how long explain details are kept", default=24.0, shown="24", parse=_positive
    )
    explain_share: float = variable(
        "EXPLAIN_SHARE",
        "share of calls (0 to 1) whose details are kept although nothing went wrong",
        default=0.01,
        shown="0.01",
        parse=_share,
    )


@dataclass(frozen=True, slots=True)
class KeepSettings:
    """How long what has happened is kept."""

    usage_days: float = variable(
        "USAGE_RETENTION_DAYS",
        "how long usage records are kept; they go by whole months",
        default=400.0,
        shown="400",
        parse=_positive,
    )
    sums_days: float = variable(
        "USAGE_SUMS_RETENTION_DAYS",
        "how long hourly sums of usage and counts of refusals are kept",
        default=1200.0,
        shown="1200",
        parse=_positive,
    )
    audit_days: float = variable(
        "AUDIT_RETENTION_DAYS", "how long audit events are kept", default=400.0, shown="400", parse=_positive
    )


@dataclass(frozen=True, slots=True)
class WebSettings:
    """What stands in front of us, and what we write to the log."""

    trusted_proxies: tuple[str, ...] = variable(
        "TRUSTED_PROXIES", "addresses whose X-Forwarded-For is believed", default=(), shown="empty", parse=_words
    )
    cors_origins: tuple[str, ...] = variable(
        "CORS_ORIGINS", "origins that browsers may call from", default=(), shown="empty", parse=_words
    )
    root_path: str = variable(
        "ROOT_PATH", "path prefix that a proxy in front strips", default="", shown="empty", parse=_root_path
    )
    log_level: str = variable("LOG_LEVEL", "debug, info, warning or error", default="info", shown="info", parse=_level)


@dataclass(frozen=True, slots=True)
class TestSettings:
    """Hooks of the fault tests; unset in every real installation."""

    crash_at: str | None = variable(
        "CRASH_AT",
        "tests only: the process kills itself with SIGKILL at this named point",
        default=None,
        shown="unset",
        parse=_text,
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a process; built once, passed as a value."""

    database: DatabaseSettings = DatabaseSettings()
    host: HostSettings = HostSettings()
    security: SecuritySettings = SecuritySettings()
    pace: PaceSettings = PaceSettings()
    keep: KeepSettings = KeepSettings()
    web: WebSettings = WebSettings()
    test: TestSettings = TestSettings()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read `MODELPORT_*`. Raises SettingsError for a wrong value."""
        found = dict(os.environ if environment is None else environment)
        groups = {group.name: _read_group(group.default, found) for group in fields(cls)}
        settings = cls(**groups)
        if settings.database.url and not settings.security.master_keys:
            raise SettingsError(
                f"{PREFIX}MASTER_KEYS is required with {PREFIX}DATABASE_URL: "
                'set it to "k1:$(openssl rand -base64 32)" and keep it safe'
            )
        return settings


def variables() -> Iterator[Variable]:
    """Every variable, in the order of the groups; the README's table is checked against this."""
    for group in fields(Settings):
        defaults: Any = group.default
        for declared in fields(defaults):
            yield Variable(declared.metadata["name"], declared.metadata["meaning"], declared.metadata["shown"])


def inherited_environment() -> dict[str, str]:
    """A copy of this process's environment, for starting processes of our own."""
    return dict(os.environ)


def unknown_names(environment: Mapping[str, str] | None = None) -> list[str]:
    """`MODELPORT_*` names that are no setting: told, not refused.

    Kubernetes sets such names by itself for a Service called `modelport` (MODELPORT_PORT, …).
    """
    known = {declared.name for declared in variables()}
    found = os.environ if environment is None else environment
    return sorted(name for name in found if name.startswith(PREFIX) and name not in known)


def _read_group(defaults: Any, found: Mapping[str, str]) -> Any:
    return type(defaults)(**{declared.name: _read(declared, found) for declared in fields(defaults)})


def _read(declared: Field[Any], found: Mapping[str, str]) -> Any:
    raw = found.get(declared.metadata["name"], "").strip()
    if not raw:
        return declared.default
    try:
        return declared.metadata["parse"](raw)
    except ValueError as wrong:
        raise SettingsError(f"{declared.metadata['name']}: {wrong}") from None
