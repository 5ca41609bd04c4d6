"""A node with a fake engine, and a look at its processes that does not use the code under test."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation, Status
from app.kit.http import HttpVendorClient
from app.kit.net import AddressPolicy
from app.providers.base import Device, OpenConnection
from app.providers.errors import ProviderBusy
from app.providers.local_host import LocalHost
from app.providers.local_loader import load_local_host
from app.providers.platforms.local.provider import LocalProvider
from app.providers.registry import stop_local_servers

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")
NODE_ID = "nod_test"
TOKEN = "dep_one"
TOY = DeploymentSpec("bot", "toy")
HANG_GUARD_SECONDS = 30.0

_ENGINES = """
[models.toy]
path = "toy.bin"
engine = "fake"

[models.sealed]
path = "toy.bin"
engine = "fake"
sha256 = "{wrong_hash}"

[engines.fake]
version = "1"
command = ["{python}", "-I", "-S", "{engine}", "--host", "{{host}}", "--port", "{{port}}", "--name", "{{served_name}}"]
environment = {{ ENGINE_API_KEY = "{{api_key}}", ENGINE_MODEL = "{{model}}" }}
inherit_environment = ["ENGINE_FLAVOUR"]

[engines.fake.arguments]
"--fault" = {{ type = "choice", values = ["exit", "deaf", "helper"] }}
"--size" = {{ type = "integer", minimum = 1, maximum = 9 }}
"""


def faulty(fault: str, model: str = "toy") -> DeploymentSpec:
    return DeploymentSpec("bot", model, engine={"name": "fake", "args": ["--fault", fault]})


@dataclass
class Clock:
    """The monotonic clock, which a test may push on."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@dataclass
class Node:
    """One gateway process's view of the node; `provider` may be replaced to play another process."""

    host: LocalHost
    engines_file: Path
    provider: LocalProvider
    opened: OpenConnection
    clock: Clock = field(default_factory=Clock)

    async def create(self, spec: DeploymentSpec = TOY, token: str = TOKEN) -> str:
        return (await self.provider.create(self.opened, spec, Device(CreateDevice.TOKEN, token))).external_id

    async def get(self, token: str = TOKEN, spec: DeploymentSpec = TOY) -> Observation | None:
        return await self.provider.get(self.opened, token, spec)

    async def until(self, status: Status, token: str = TOKEN, spec: DeploymentSpec = TOY) -> Observation:
        async with asyncio.timeout(HANG_GUARD_SECONDS):
            while True:
                with suppress(ProviderBusy):  # a moment without an answer; the reconciler asks again as well
                    seen = await self.get(token, spec)
                    assert seen is not None, "the server is gone"
                    if seen.status is status:
                        return seen
                await asyncio.sleep(0.02)

    async def until_gone(self, token: str = TOKEN) -> None:
        async with asyncio.timeout(HANG_GUARD_SECONDS):
            while await self.get(token) is not None:
                await asyncio.sleep(0.02)

    def processes(self, token: str = TOKEN) -> list[int]:
        """Everything on this machine that was started for this token of this node, zombies left out."""
        home = f"HOME={self.host.data_dir}/local/{token}".encode()
        found = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [int(pid) for pid in found if home in _environ(pid).split(b"\0")]

    def mains(self, token: str = TOKEN) -> list[int]:
        """Those that lead a session: one for each server."""
        return [pid for pid in self.processes(token) if _session(pid) == pid]

    def main_file(self, name: str) -> bytes:
        """A file of the one server's main process in /proc."""
        (pid,) = self.mains()
        return Path(f"/proc/{pid}/{name}").read_bytes()

    def main_links(self) -> set[str]:
        """What the one server's main process has open, and not closed while we look."""
        (pid,) = self.mains()
        found = set[str]()
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # such as the connection that its last answer went through
                found.add(str(link.readlink()))
        return found


@asynccontextmanager
async def local_node(folder: Path, environment: dict[str, str] | None = None) -> AsyncIterator[Node]:
    """A node whose servers are all ended, and proven gone, when the block is left."""
    (folder / "toy.bin").write_bytes(b"a model")
    engines_file = folder / "engines.toml"
    engines_file.write_text(_ENGINES.format(python=sys.executable, engine=FAKE_ENGINE, wrong_hash="0" * 64))
    host = load_local_host(
        engines_file=engines_file,
        data_dir=folder / "data",
        node_id=NODE_ID,
        advertise_host="127.0.0.1",
        environment={"PATH": os.defpath, **(environment or {})},
    )
    clock = Clock()
    node = Node(host, engines_file, LocalProvider(host, now=clock), connected(), clock)
    try:
        yield node
    finally:
        await stop_local_servers(host, timeout_seconds=0.5)
        assert [node.processes(token) for token in _tokens(host)] == [[]] * len(_tokens(host))


def _tokens(host: LocalHost) -> list[str]:
    return [path.name for path in host.servers_dir.iterdir() if path.is_dir()] if host.servers_dir.is_dir() else []


def connected(node_id: str = NODE_ID) -> OpenConnection:
    connection = Connection("con_one", ProviderKind("local"), {"tenants": ["*"]}, {}, node_id=node_id)
    return OpenConnection(connection, HttpVendorClient(AddressPolicy()))


def _environ(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None
