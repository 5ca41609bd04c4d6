"""The four emulated accounts: how each is connected and deployed on, and what exists on them between two runs."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from app.lifespan.files import write_private
from tests.emulators import alayanew, bailian, pai, zstack
from tests.emulators.alayanew.catalog import BASE_MODEL
from tests.emulators.running import serving
from tests.emulators.zstack.catalog import ZONE

PACKAGES: dict[str, Any] = {"bailian": bailian, "alayanew": alayanew, "zstack": zstack, "pai": pai}
_PACE = 0.4
"""Of the emulators' usual delays: everything is running within three seconds."""
_NOT_KEPT = frozenset({"journal", "faults", "forward", "nonces"})
_SAVE_SECONDS = 2.0

SETTINGS: dict[str, dict[str, Any]] = {
    "bailian": {},
    "alayanew": {"vks_id": "vcacb50arkk4", "gpu_type": "nvidia.com/gpu-l40s"},
    "zstack": {"zone_uuid": ZONE},
    "pai": {"endpoint_scheme": "as_given"},
}
CREDENTIALS: dict[str, tuple[str, ...]] = {
    "bailian": ("api_key",),
    "alayanew": ("access_key", "secret_key"),
    "zstack": ("account_name", "password"),
    "pai": ("access_key_id", "access_key_secret"),
}
"""Members of the account, which are named as the connection's credentials are."""
EXAMPLES: dict[str, dict[str, Any]] = {
    "bailian": {"model": "qwen3-8b", "plan": "mu", "template": "MU1", "capacity": {"units": 4}},
    "alayanew": {
        "model": BASE_MODEL,
        "plan": "expert",
        "capacity": {"min_replicas": 1, "max_replicas": 2},
        "resources": {"cpu": 4, "memory_bytes": 10 * 2**30, "gpu": {"count": 1}},
        "provider_options": {"headConfig": {"image": "vllm:0.9"}},
    },
    "zstack": {"model": "qwen3-8b", "template": "text to text model service"},
    "pai": {"model": "Qwen3-8B", "capacity": {"replicas": 1}},
}
"""One deployment for each platform, of a model that its catalog shows."""


@dataclass
class Platform:
    kind: str
    account: Any
    url: str = field(default="", init=False)

    @property
    def connection(self) -> dict[str, Any]:
        """The body of a connection to it."""
        settings = {"base_url": self.url, **SETTINGS[self.kind]}
        credentials = {name: getattr(self.account, name) for name in CREDENTIALS[self.kind]}
        return {"name": self.kind, "provider": self.kind, "settings": settings, "credentials": credentials}


@asynccontextmanager
async def running_platforms(data_dir: Path, first_port: int) -> AsyncIterator[list[Platform]]:
    """All four on ports from that one on, or on free ones; their accounts are kept in the data directory."""
    file = data_dir / "platforms.pickle"
    platforms = _platforms(file)
    async with AsyncExitStack() as stack:
        for number, one in enumerate(platforms):
            app = PACKAGES[one.kind].create_emulator(one.account)
            one.url = f"http://{await stack.enter_async_context(serving(app, port=first_port + number))}"
        saving = asyncio.create_task(_save_often(platforms, file))
        try:
            yield platforms
        finally:
            saving.cancel()
            _save(platforms, file)


def _platforms(file: Path) -> list[Platform]:
    """As the last run left them; new where there was none, or one of another version."""
    kept: dict[str, Any] = {}
    with suppress(Exception):
        kept = pickle.loads(file.read_bytes())
    found = [Platform(kind, kept.get(kind) or package.Account()) for kind, package in PACKAGES.items()]
    for one in found:
        one.account.delays = PACKAGES[one.kind].Delays().scaled(_PACE)
    return found


async def _save_often(platforms: list[Platform], file: Path) -> None:
    while True:
        await asyncio.sleep(_SAVE_SECONDS)
        _save(platforms, file)


def _save(platforms: list[Platform], file: Path) -> None:
    content = pickle.dumps({one.kind: _kept(one.account) for one in platforms})
    if not file.exists() or file.read_bytes() != content:
        write_private(file, content)


def _kept(account: Any) -> Any:
    """A copy without what belongs to one run."""
    blank = type(account)()
    own = {one.name for one in fields(account)}
    return replace(account, **{name: getattr(blank, name) for name in _NOT_KEPT & own})
