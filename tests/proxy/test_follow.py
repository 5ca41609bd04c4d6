"""Following the registry: what is committed is taken in, in any order of commits, and nothing else is read."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from app.errors import NotAuthenticated, StoreUnavailable
from app.kit.hints import Hint
from app.kit.secrets import Keyring, new_api_key, new_pepper
from app.proxy.authenticate import Authenticator
from app.proxy.directory import Directory
from app.proxy.follow import Follower
from app.store import changes, notify, places
from app.store.changes import Loader
from app.store.engine import make_engine
from app.store.peppers import Peppers
from app.store.session import Store
from app.store.tables import ApiKeyRow, DeploymentRow, PepperRow, RouteRow, TenantRow
from tests.support.registry import MadeKey, Registry, change_in

GUARD_SECONDS = 60.0


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Scene:
    store: Store
    registry: Registry
    follower: Follower
    directory: Directory
    authenticator: Authenticator
    clock: Clock
    drains: list[None]

    def accepts(self, text: str) -> bool:
        try:
            self.authenticator.identify(f"Bearer {text}".encode())
        except NotAuthenticated:
            return False
        return True


@pytest.fixture
async def scene(store: Store, keyring: Keyring) -> Scene:
    """The registry is written with one set of peppers and read with another, as by two processes."""
    writers, readers = Peppers(keyring), Peppers(keyring)
    async with store.write() as session:
        await writers.ensure_one(session)
    clock, directory, drains = Clock(), Directory(), list[None]()
    follower = Follower(store, Loader(keyring, readers), directory, on_drain=lambda: drains.append(None), clock=clock)
    registry = Registry(store, keyring, writers)
    return Scene(store, registry, follower, directory, Authenticator(follower, readers), clock, drains)


async def made_key(scene: Scene, **more: object) -> MadeKey:
    return await scene.registry.key(await scene.registry.tenant(), **more)  # type: ignore[arg-type]


async def until_over(scene: Scene, xid: int) -> None:
    """Poll until that transaction is known to be over: an older one of anybody in the cluster may hold that up."""
    async with asyncio.timeout(GUARD_SECONDS):
        while (scene.follower.xmin or 0) <= xid:
            await scene.follower.poll()


async def test_the_first_read_takes_in_everything(scene: Scene) -> None:
    key = await made_key(scene)
    tenant_id = key.row.tenant_id or ""
    deployment_id = await scene.registry.deployment(tenant_id, "bot", "https://upstream.test/base/v1/")
    route_id = await scene.registry.route(None, "all", [deployment_id], shared_with=["*"])
    assert scene.follower.age_seconds() == math.inf
    await scene.follower.poll()
    assert scene.follower.age_seconds() == 0
    assert scene.accepts(key.text)
    upstream = scene.directory.upstreams[deployment_id]
    assert (upstream.origin.host, upstream.origin.port, upstream.path) == ("upstream.test", 443, "/base/v1")
    assert upstream.origin.trusted
    assert dict(upstream.headers)[b"authorization"].startswith(b"Bearer sk-upstream")
    assert "sk-upstream" not in repr(upstream) + repr(scene.directory.deployment(deployment_id))
    assert [route.id for route in scene.directory.shared("all")] == [route_id]


async def test_a_revoked_key_is_refused_after_one_poll_and_a_deleted_one_too(scene: Scene) -> None:
    first, second = await made_key(scene), await made_key(scene)
    await scene.follower.poll()
    await scene.registry.change(ApiKeyRow, first.id, revoked_at=datetime.now(UTC))
    await scene.registry.remove(ApiKeyRow, second.id)
    assert scene.accepts(first.text)
    await scene.follower.poll()
    assert not scene.accepts(first.text)
    assert not scene.accepts(second.text)


async def test_a_poll_reads_only_what_changed(scene: Scene) -> None:
    """A row that was changed without saying so shows whether it was read."""
    quiet, loud = await scene.registry.tenant("quiet"), await scene.registry.tenant("loud")
    await until_over(scene, await scene.registry.change(TenantRow, quiet, currency="EUR"))
    async with scene.store.write() as session:
        await session.execute(TenantRow.__table__.update().values(suspended=True))  # type: ignore[attr-defined]
    await scene.registry.change(TenantRow, loud, suspended=True)
    await scene.follower.poll()
    tenants = scene.directory.tenants.entries
    assert (tenants[quiet].suspended, tenants[loud].suspended) == (False, True)


async def test_a_transaction_that_commits_late_is_not_missed(scene: Scene) -> None:
    """It began before others that were polled in between; a sequence number would have skipped it."""
    early, late = await scene.registry.tenant("early"), await scene.registry.tenant("late")
    await scene.follower.poll()
    async with scene.store.write() as slow:
        await change_in(slow, TenantRow, late, suspended=True)
        await scene.registry.change(TenantRow, early, suspended=True)
        await scene.follower.poll()
        assert scene.directory.tenants.entries[early].suspended
        assert not scene.directory.tenants.entries[late].suspended
    await scene.follower.poll()
    assert scene.directory.tenants.entries[late].suspended


async def test_a_rotated_key_works_beside_the_new_one_until_its_overlap_ends(scene: Scene) -> None:
    key = await made_key(scene)
    new = new_api_key()
    row = key.row
    await scene.registry.change(
        ApiKeyRow,
        key.id,
        **scene.registry.secret_columns(new),
        previous_public_id=row.public_id,
        previous_digest=row.digest,
        previous_pepper_id=row.pepper_id,
        previous_until=datetime.now(UTC) + timedelta(seconds=60),
    )
    await scene.follower.poll()
    assert scene.accepts(key.text)
    assert scene.accepts(new.text)
    scene.clock.seconds += 25
    assert scene.accepts(key.text)
    await scene.registry.change(ApiKeyRow, key.id, previous_until=datetime.now(UTC))
    await scene.follower.poll()
    assert not scene.accepts(key.text)
    assert scene.accepts(new.text)


async def test_a_key_expires_by_the_databases_clock_between_two_polls(scene: Scene) -> None:
    key = await made_key(scene, expires_at=datetime.now(UTC) + timedelta(seconds=20))
    await scene.follower.poll()
    assert scene.accepts(key.text)
    scene.clock.seconds += 21
    assert not scene.accepts(key.text)


async def test_a_pepper_made_by_another_process_is_read_when_a_key_names_it(scene: Scene, keyring: Keyring) -> None:
    await scene.follower.poll()
    pepper_id = "pep_" + "z" * 26
    async with scene.store.write() as session:
        session.add(PepperRow(id=pepper_id, sealed=keyring.seal(new_pepper(), places.pepper(pepper_id))))
        await session.flush()
        await scene.registry.peppers.load(session)
    assert scene.registry.peppers.newest_id == pepper_id
    key = await made_key(scene)
    await scene.follower.poll()
    assert scene.accepts(key.text)


async def test_an_upstream_key_that_cannot_be_opened_closes_only_its_deployment(scene: Scene) -> None:
    tenant_id = await scene.registry.tenant()
    broken = await scene.registry.deployment(tenant_id, "broken", "https://a.test/v1")
    sound = await scene.registry.deployment(tenant_id, "sound", "https://b.test/v1")
    await scene.registry.change(DeploymentRow, broken, upstream_key_sealed=b"\x01\x01xnot sealed by any key of ours")
    await scene.follower.poll()
    assert scene.directory.upstreams.keys() == {sound}
    assert scene.directory.deployment(broken) is not None


async def test_a_drain_is_taken_in_before_its_transaction_is_said_to_be(scene: Scene) -> None:
    deployment_id = await scene.registry.deployment(await scene.registry.tenant(), "bot", "https://a.test/v1")
    await scene.follower.poll()
    drain_xid = await scene.registry.change(DeploymentRow, deployment_id, draining_since=datetime.now(UTC))
    assert (scene.follower.xmin or 0) <= drain_xid
    assert scene.drains == []
    await scene.follower.poll()
    assert scene.directory.is_draining(deployment_id)
    assert scene.drains == [None]
    await until_over(scene, drain_xid)
    assert scene.directory.is_draining(deployment_id)


async def test_after_a_long_silence_everything_is_read_again(scene: Scene) -> None:
    """The feed is kept for an hour; what it no longer holds must not be believed unchanged."""
    tenant_id = await scene.registry.tenant()
    route_id = await scene.registry.route(tenant_id, "r", [])
    await scene.follower.poll()
    await scene.registry.remove(RouteRow, route_id)
    async with scene.store.write() as session:
        await session.execute(changes.feed.ChangeRow.__table__.delete())  # type: ignore[attr-defined]
    await scene.follower.poll()
    assert scene.directory.named(tenant_id, "r") is not None, "nothing said that it is gone"
    scene.clock.seconds += changes.KEPT_MINUTES * 60 / 2
    await scene.follower.poll()
    assert scene.directory.named(tenant_id, "r") is None


async def test_refreshes_that_wait_for_each_other_share_a_poll(scene: Scene) -> None:
    await scene.follower.poll()
    begun = scene.follower._polls_begun
    await asyncio.gather(*(scene.follower.refresh() for _ in range(20)))
    assert scene.follower._polls_begun - begun <= 2


async def test_what_was_committed_before_a_refresh_is_in_the_directory_after_it(scene: Scene) -> None:
    tenants = [await scene.registry.tenant() for _ in range(5)]
    await scene.follower.poll()

    async def suspend(tenant_id: str) -> bool:
        await scene.registry.change(TenantRow, tenant_id, suspended=True)
        await scene.follower.refresh()
        return scene.directory.tenants.entries[tenant_id].suspended

    assert await asyncio.gather(*(suspend(one) for one in tenants)) == [True] * 5


async def test_a_notification_wakes_the_loop_and_an_error_does_not_end_it(scene: Scene, dsn: str) -> None:
    hint = Hint()
    loops = [
        asyncio.get_running_loop().create_task(scene.follower.run(hint)),
        asyncio.get_running_loop().create_task(notify.listen(dsn, hint.give)),
    ]
    try:
        async with asyncio.timeout(GUARD_SECONDS):
            for suspended in (True, False):
                tenant_id = await scene.registry.tenant(suspended=suspended)
                while scene.directory.tenant(tenant_id) is None:
                    await asyncio.sleep(0.01)
    finally:
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)


async def test_without_a_database_the_directory_keeps_its_state_and_grows_old(keyring: Keyring, scene: Scene) -> None:
    key = await made_key(scene)
    await scene.follower.poll()
    nowhere = Store(make_engine("postgresql:///none?host=/nowhere&user=nobody", pool_size=1))
    scene.follower._store = nowhere
    with pytest.raises(StoreUnavailable):
        await scene.follower.poll()
    await scene.follower.refresh()
    assert scene.accepts(key.text)
    scene.clock.seconds += 31
    with pytest.raises(StoreUnavailable):
        scene.accepts(key.text)
    await nowhere.aclose()


async def test_what_a_newer_release_has_written_grants_and_serves_nothing(scene: Scene) -> None:
    key = await made_key(scene, scopes=["inference", "clairvoyance"])
    deployment_id = await scene.registry.deployment(
        key.row.tenant_id or "", "bot", "https://a.test/v1", status="hibernating"
    )
    await scene.follower.poll()
    assert scene.authenticator.identify(f"Bearer {key.text}".encode()).scopes == {"inference"}
    deployment = scene.directory.deployment(deployment_id)
    assert deployment is not None
    assert not deployment.routable
