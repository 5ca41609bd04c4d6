"""Model servers of this node: one process for each token, whatever is killed when.

The engine is a fake, the processes are real. `Node.processes` looks at /proc by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.domain.deployment import CreateDevice, DeploymentSpec, Status
from app.kit.clock import monotonic
from app.kit.http import HttpVendorClient
from app.kit.net import AddressPolicy
from app.providers.base import Device
from app.providers.errors import ProviderBusy, ProviderMissing, ProviderRefused
from app.providers.local_host import LocalHost
from app.providers.platforms.local.provider import LocalProvider
from app.providers.platforms.local.state import ServerPlace, list_tokens
from app.providers.platforms.local.steps import CRASH_LIMIT, ENDING_SECONDS, LONGEST_WAIT_SECONDS, STEADY_SECONDS
from app.providers.platforms.local.supervisor import Supervisor
from app.providers.registry import stop_local_servers
from tests.support.clock import Clock
from tests.support.local_gateways import gateways
from tests.support.local_node import NODE_ID, TOKEN, TOY, Node, connected, faulty, local_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with local_node(tmp_path) as running:
        yield running


async def test_a_server_is_made_stopped_started_restarted_and_deleted(node: Node) -> None:
    assert await node.create() == TOKEN
    running = await node.until(Status.RUNNING)
    assert running.upstream is not None
    assert running.upstream.served_models == {"": "toy"}
    (first,) = node.mains()

    await node.provider.stop(node.opened, TOKEN)
    stopped = await node.until(Status.STOPPED)
    assert stopped.upstream is None
    assert node.processes() == []

    await node.provider.start(node.opened, TOKEN, TOY)
    await node.until(Status.RUNNING)
    (second,) = node.mains()

    await node.provider.restart(node.opened, TOKEN, TOY)
    await node.until(Status.RUNNING)
    (third,) = node.mains()
    assert len({first, second, third}) == 3

    await node.provider.delete(node.opened, TOKEN)
    await node.until_gone()
    assert node.processes() == []
    assert list(node.host.servers_dir.iterdir()) == []


async def test_the_upstream_answers_to_its_key_only(node: Node) -> None:
    await node.create()
    upstream = (await node.until(Status.RUNNING)).upstream
    assert upstream is not None
    assert upstream.auth_value is not None
    client = HttpVendorClient(AddressPolicy(), exempt=upstream.exempt)
    right = await client.request("GET", upstream.base_url + "/models", headers={"authorization": upstream.auth_value})
    wrong = await client.request("GET", upstream.base_url + "/models", headers={"authorization": "Bearer guess"})
    assert (right.status_code, wrong.status_code) == (200, 401)
    assert upstream.base_url == f"http://{upstream.exempt}/v1"


async def test_every_verb_may_be_repeated(node: Node) -> None:
    for _ in range(2):
        await node.create()
    await node.until(Status.RUNNING)
    for _ in range(2):
        await node.provider.start(node.opened, TOKEN, TOY)
        assert len(node.mains()) == 1
    for _ in range(2):
        await node.provider.stop(node.opened, TOKEN)
    await node.until(Status.STOPPED)
    for _ in range(2):
        await node.provider.delete(node.opened, TOKEN)
    await node.until_gone()
    await node.provider.delete(node.opened, "dep_never")


async def test_a_restart_asked_for_twice_is_one_restart(node: Node) -> None:
    await node.create()
    await node.until(Status.RUNNING)
    for _ in range(3):
        await node.provider.restart(node.opened, TOKEN, TOY)
    again = await node.until(Status.RUNNING)
    assert again.raw["generation"] == 2


async def test_what_is_not_there_is_missing_and_leaves_nothing_behind(node: Node) -> None:
    for token in ("dep_never", "../../etc", "a/b", "", "dep_" + "x" * 200):
        assert await node.get(token) is None
        with pytest.raises(ProviderMissing):
            await node.provider.stop(node.opened, token)
        with pytest.raises(ProviderMissing):
            await node.provider.start(node.opened, token, TOY)
    assert list(node.host.servers_dir.iterdir()) == []


async def test_a_server_that_dies_is_started_again(node: Node) -> None:
    await node.create()
    await node.until(Status.RUNNING)
    (first,) = node.mains()
    os.kill(first, signal.SIGKILL)
    node.clock.ahead += LONGEST_WAIT_SECONDS
    await _until_replaced(node, first)
    back = await node.until(Status.RUNNING)
    assert back.raw["crashes"] == 1
    node.clock.ahead += STEADY_SECONDS
    await node.until(Status.RUNNING)
    steady = await node.until(Status.RUNNING)
    assert steady.raw["crashes"] == 0


async def test_a_server_that_cannot_run_is_left_alone_with_its_last_words(node: Node) -> None:
    await node.create(faulty("exit"))
    for _ in range(CRASH_LIMIT):
        await _until_no_process(node)
        seen = await node.get()
        node.clock.ahead += LONGEST_WAIT_SECONDS
        await node.get()
    failed = await node.until(Status.FAILED)
    assert seen is not None
    assert failed.status_reason is not None
    assert "exit code 1" in failed.status_reason
    assert "cannot serve toy: my key is ***, my home is …" in failed.status_reason
    assert str(node.host.data_dir) not in failed.status_reason
    assert node.processes() == []

    await node.provider.update(node.opened, TOKEN, TOY)
    mended = await node.until(Status.RUNNING)
    assert mended.raw["crashes"] == 0


async def test_a_server_that_ignores_sigterm_is_killed(node: Node) -> None:
    await node.create(faulty("deaf"))
    await node.until(Status.RUNNING)
    hand = Clock(node.clock())  # so that no standstill of the machine ends its time before we have looked
    node.provider = LocalProvider(node.host, now=hand)
    await node.provider.stop(node.opened, TOKEN)
    stopping = await node.get()
    assert stopping is not None
    assert stopping.status is Status.STOPPING
    assert len(node.mains()) == 1
    hand.tick(ENDING_SECONDS)
    await node.until(Status.STOPPED)
    assert node.processes() == []


async def test_what_a_dead_server_leaves_running_is_ended_before_the_next_one_starts(node: Node) -> None:
    await node.create(faulty("helper"))
    await node.until(Status.RUNNING)
    (main,) = node.mains()
    (helper,) = set(node.processes()) - {main}
    os.kill(main, signal.SIGKILL)
    await _until_replaced(node, main)
    await node.until(Status.RUNNING)
    assert helper not in node.processes()
    assert len(node.mains()) == 1


async def test_an_update_needs_a_new_process_only_where_the_server_changes(node: Node) -> None:
    await node.create()
    await node.until(Status.RUNNING)
    (before,) = node.mains()
    renamed = DeploymentSpec("bot", "toy", served_names=("small",))
    await node.provider.update(node.opened, TOKEN, renamed)
    same = await node.until(Status.RUNNING, spec=renamed)
    assert node.mains() == [before]
    assert same.upstream is not None
    assert same.upstream.served_models == {"": "toy", "small": "toy"}
    sized = DeploymentSpec("bot", "toy", engine={"args": ["--size", "3"]})
    await node.provider.update(node.opened, TOKEN, sized)
    await _until_replaced(node, before)
    await node.until(Status.RUNNING, spec=sized)
    assert b"--size\x003" in node.main_file("cmdline")


async def test_a_server_gets_an_allow_list_of_our_environment(tmp_path: Path) -> None:
    secrets = {"MODELPORT_MASTER_KEYS": "k1:canary", "AWS_SECRET": "canary"}
    parent = {**secrets, "ENGINE_FLAVOUR": "plain", "LANG": "C.UTF-8"}
    async with local_node(tmp_path, parent) as node:
        await node.create()
        await node.until(Status.RUNNING)
        words = node.main_file("environ").decode().split("\0")
    found = dict(word.split("=", 1) for word in words if word)
    assert found.keys() == {
        *("PATH", "LANG", "HOME", "TMPDIR", "MODELPORT_DEPLOYMENT", "MODELPORT_SERVER_DIR"),
        *("ENGINE_API_KEY", "ENGINE_MODEL", "ENGINE_FLAVOUR"),
    }
    assert "canary" not in str(found)
    assert found["ENGINE_MODEL"] == str(tmp_path / "toy.bin")


async def test_a_server_cannot_gain_privileges_dump_its_memory_or_reach_our_files(node: Node) -> None:
    await node.create()
    await node.until(Status.RUNNING)
    assert b"NoNewPrivs:\t1" in node.main_file("status")
    assert b"Max core file size        0                    0" in node.main_file("limits")
    assert int(node.main_file("oom_score_adj")) == 500
    server = node.host.servers_dir
    expected = {"/dev/null", str(server / TOKEN / "server.log"), str(server / f"{TOKEN}.lock")}
    assert {name for name in node.main_links() if not name.startswith("socket:")} == expected
    assert (server / TOKEN / "record.json").stat().st_mode & 0o777 == 0o600
    assert (server / TOKEN).stat().st_mode & 0o777 == 0o700


async def test_memory_is_bounded_where_a_deployment_asks_for_it(node: Node) -> None:
    spec = DeploymentSpec("bot", "toy", resources={"memory_bytes": 128 * 1024 * 1024, "cpu": 1, "workers": 1})
    await node.create(spec)
    await node.until(Status.RUNNING, spec=spec)
    assert f"Max data size             {128 * 1024 * 1024} ".encode() in node.main_file("limits")
    assert b"OMP_NUM_THREADS=1" in node.main_file("environ").split(b"\0")


async def test_a_model_file_that_was_exchanged_is_not_served(node: Node) -> None:
    await node.create(faulty("deaf", model="sealed"))
    async with asyncio.timeout(30):
        while (seen := await node.get()) is None or seen.status_reason is None:
            await asyncio.sleep(0.01)
    assert seen.status is Status.DEPLOYING
    assert "its sha256 differs" in seen.status_reason


async def test_a_model_that_the_node_no_longer_offers_fails_with_the_reason(node: Node) -> None:
    await node.create()
    await node.until(Status.RUNNING)
    bare = LocalHost(NODE_ID, node.host.data_dir, "127.0.0.1", node.host.python, 2)
    node.provider = LocalProvider(bare, now=node.clock)
    await node.provider.restart(node.opened, TOKEN, TOY)
    failed = await node.until(Status.FAILED)
    assert failed.status_reason == "This node no longer offers toy with fake."
    assert node.processes() == []


async def test_a_server_that_hangs_is_not_called_dead(node: Node) -> None:
    """It may only be at its limit: whoever asks keeps what was known, and the process is let be."""
    await node.create()
    await node.until(Status.RUNNING)
    (main,) = node.mains()
    os.kill(main, signal.SIGSTOP)
    try:
        with pytest.raises(ProviderBusy, match="does not answer"):
            await node.get()
        assert node.mains() == [main]
    finally:
        os.kill(main, signal.SIGCONT)


async def test_the_last_to_leave_ends_all_servers_and_the_next_brings_them_back(node: Node) -> None:
    for token in ("dep_a", "dep_b"):
        await node.create(token=token)
    await node.create(faulty("deaf"), token="dep_c")
    for token in ("dep_a", "dep_b", "dep_c"):
        await node.until(Status.RUNNING, token)
    assert await stop_local_servers(node.host, timeout_seconds=0.3) == 3
    assert [node.processes(token) for token in ("dep_a", "dep_b", "dep_c")] == [[], [], []]
    assert list_tokens(node.host) == ("dep_a", "dep_b", "dep_c")
    back = await node.until(Status.RUNNING, "dep_a")
    assert back.raw["crashes"] == 0


async def test_a_shutdown_on_a_machine_that_stood_still_kills_who_ignores_sigterm(node: Node) -> None:
    """All of its time, and that of what cannot be killed, is over at the first look."""
    await node.create(faulty("deaf"))
    await node.until(Status.RUNNING)
    began = monotonic()
    leaps = itertools.chain([began], itertools.repeat(began + 60))
    assert Supervisor(node.host, now=lambda: next(leaps)).stop_all(0.5) == 1
    assert node.processes() == []


async def test_a_removal_that_was_cut_short_keeps_no_other_server_running(node: Node) -> None:
    """Killed between the renaming of its directory and the end of its removal."""
    await node.create(token="dep_a")
    await node.until(Status.RUNNING, "dep_a")
    left = node.host.servers_dir / "dep_0.gone"
    left.mkdir()
    (left / "record.json").write_text("{}")
    assert list_tokens(node.host) == ("dep_a",)
    assert await stop_local_servers(node.host, timeout_seconds=0.5) == 1
    assert node.processes("dep_a") == []
    assert not left.exists()


async def test_another_nodes_connection_is_refused_and_never_acted_on(node: Node) -> None:
    foreign = connected("nod_other")
    await node.create()
    for call in (
        node.provider.get(foreign, TOKEN, TOY),
        node.provider.delete(foreign, TOKEN),
        node.provider.restart(foreign, TOKEN, TOY),
        node.provider.models(foreign, {}),
    ):
        with pytest.raises(ProviderBusy) as raised:
            await call
        assert raised.value.code == "node_unreachable"
    assert len(node.mains()) == 1


async def test_a_broken_record_is_trouble_not_absence(node: Node) -> None:
    """Were it taken for absence, a running server would be forgotten and its deployment called deleted."""
    await node.create()
    (ServerPlace(node.host, TOKEN).directory / "record.json").write_text("{")
    with pytest.raises(ProviderBusy):
        await node.get()
    (ServerPlace(node.host, TOKEN).directory / "record.json").write_text("{}")
    with pytest.raises(ProviderBusy):
        await node.get()


async def test_a_log_that_grows_without_end_is_cut(node: Node) -> None:
    await node.create()
    await node.until(Status.RUNNING)
    log_path = ServerPlace(node.host, TOKEN).log_path
    os.truncate(log_path, 64 * 1024 * 1024)
    await node.until(Status.RUNNING)
    assert log_path.stat().st_size < 10_000


async def test_a_create_that_cannot_be_is_refused(node: Node) -> None:
    with pytest.raises(ProviderRefused, match="has no model 'gone'"):
        await node.create(DeploymentSpec("bot", "gone"))
    assert list_tokens(node.host) == ()


@pytest.mark.parametrize("point", ["local.prepared", "local.spawned"])
async def test_a_gateway_killed_while_it_starts_a_server_leaves_one_server_at_most(node: Node, point: str) -> None:
    async with gateways(node) as others:
        await others.run("create", TOKEN, point)
        assert await others.ended() == [-signal.SIGKILL]
    assert len(node.mains()) == (1 if point == "local.spawned" else 0)
    assert await node.provider.find(node.opened, TOY, Device(CreateDevice.TOKEN, TOKEN)) == TOKEN
    await node.create()
    await node.create()
    await _until_running_once(node)


async def test_gateways_killed_at_twenty_random_moments_leave_one_server_each(node: Node) -> None:
    chance = random.Random(20_251_121)
    tokens = [f"dep_{number}" for number in range(20)]
    async with gateways(node) as others:
        for token in tokens:
            pid = await others.run("create", token)
            await asyncio.sleep(chance.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
        await others.ended()
    for token in tokens * 2:
        await node.create(token=token)
    for token in tokens:
        await _until_there(node, token)
    for token in tokens:  # one whose port another has just taken is there, and about to end
        await node.until(Status.RUNNING, token)
    assert [len(node.mains(token)) for token in tokens] == [1] * 20


async def test_two_gateways_that_create_the_same_server_make_one(node: Node) -> None:
    async with gateways(node) as others:
        for _ in range(8):
            await others.run("create", TOKEN)
        assert await others.ended() == [0] * 8
    await _until_running_once(node)


async def test_a_gateway_killed_while_it_ends_a_server_has_ended_it(node: Node) -> None:
    """`local.stopped` is right after the signal: the record says stopped, so nothing starts it again."""
    await node.create()
    await node.until(Status.RUNNING)
    async with gateways(node) as others:
        await others.run("stop", TOKEN, "local.stopped")
        assert await others.ended() == [-signal.SIGKILL]
    await node.until(Status.STOPPED)
    assert node.processes() == []


async def _until_running_once(node: Node) -> None:
    await node.until(Status.RUNNING)
    assert len(node.mains()) == 1
    await node.provider.delete(node.opened, TOKEN)
    await node.until_gone()
    assert node.processes() == []


async def _until_replaced(node: Node, pid: int) -> None:
    async with asyncio.timeout(30):
        while node.mains() in ([], [pid]):
            node.clock.ahead += 1
            with suppress(ProviderBusy):  # killed, and not yet gone
                await node.get()
            await asyncio.sleep(0.02)


async def _until_there(node: Node, token: str) -> None:
    """Where a start was cut short, or another process took the port, the next look starts it again."""
    async with asyncio.timeout(30):
        while not node.mains(token):
            node.clock.ahead += 1
            with suppress(ProviderBusy):
                await node.get(token)
            await asyncio.sleep(0.02)


async def _until_no_process(node: Node) -> None:
    async with asyncio.timeout(30):
        while node.processes():
            await asyncio.sleep(0.01)
