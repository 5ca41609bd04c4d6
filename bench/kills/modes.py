"""The five accounts, one for each device that keeps a create from happening twice, and what their ledgers say.

token         zstack     ids of job and group are ours: a second create is refused as such
unique_name   pai        the service's name is ours, and unique
suffix        bailian    joined to the id, and refused the second time
list_only     alayanew   nothing refuses a second one; names in the list end with our token
none          alayanew   the same, and the platform names services itself: nothing leads back to us
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp

from tests.emulators import alayanew, bailian, pai, zstack
from tests.emulators.alayanew.catalog import BASE_MODEL
from tests.emulators.zstack.catalog import ZONE

PACE = 0.1
_GPU_WORKER = {"cpu": 4, "memory_bytes": 10 * 2**30, "gpu": {"count": 1}}


@dataclass(frozen=True)
class Made:
    """Something that was ever billed. `owner`: the deployment it was made for, as its create said."""

    id: str
    owner: str | None
    since: float
    until: float


@dataclass(frozen=True)
class Mode:
    """`creates`: method and path of the platform's create. `owners` of what its ledger names, and the external
    id of each where that is another."""

    name: str
    kind: str
    account: Any
    app: ASGIApp
    settings: Mapping[str, Any]
    credentials: Mapping[str, str]
    creates: tuple[str, str]
    body: Callable[[str], dict[str, Any]]
    owners: Callable[[], Mapping[str, str]]
    verbs: tuple[str, ...] = ()
    capacity: Callable[[random.Random], dict[str, int]] | None = None
    external_ids: Callable[[], Mapping[str, str]] = field(default=dict)

    @property
    def slug(self) -> str:
        """The name of its connection."""
        return self.name.replace("_", "-")

    @property
    def proves_absence(self) -> bool:
        """Whether a person who looks at the account can tell that a create made nothing."""
        return self.name != "none"

    def ever_made(self) -> list[Made]:
        owners, found = self.owners(), dict[str, Made]()
        for one in self.account.ledger.segments:
            until = float("inf") if one.closed_at is None else one.closed_at
            before = found.get(one.deployment)
            since, until = (before.since, max(before.until, until)) if before else (one.opened_at, until)
            found[one.deployment] = Made(one.deployment, owners.get(one.deployment), since, until)
        return list(found.values())

    def billed(self) -> dict[str, str | None]:
        """What costs money now or will go on to: external id → owner."""
        names, now = self.external_ids(), self.account.clock()
        return {names.get(one.id, one.id): one.owner for one in self.ever_made() if one.until > now}


def all_modes() -> list[Mode]:
    return [_token(), _unique_name(), _suffix(), _list_only(), _none()]


def _token() -> Mode:
    account = zstack.Account(delays=zstack.Delays().scaled(PACE))
    return Mode(
        "token",
        "zstack",
        account,
        zstack.create_emulator(account),
        {"zone_uuid": ZONE},
        {"account_name": account.account_name, "password": account.password},
        ("PUT", r"/ai/model-services/[0-9a-f]{32}$"),
        lambda _: {"model": "qwen3-8b", "template": "text to text model service"},
        lambda: {one.uuid: _without_token(one.body["name"]) for one in account.groups},
        ("restart",),
    )


def _unique_name() -> Mode:
    account = pai.Account(delays=pai.Delays().scaled(PACE))
    return Mode(
        "unique_name",
        "pai",
        account,
        pai.create_emulator(account),
        {"endpoint_scheme": "as_given"},
        {"access_key_id": account.access_key_id, "access_key_secret": account.access_key_secret},
        ("POST", r"/api/v2/services$"),
        lambda name: {"model": "own", "capacity": {"replicas": 1}, "provider_options": {"containers": [_engine(name)]}},
        lambda: {one.id: one.config["containers"][0]["script"].rpartition(" ")[2] for one in account.held},
        ("stop", "start", "restart"),
        lambda dice: {"replicas": dice.randint(1, 4)},
        lambda: {one.id: one.name for one in account.held},
    )


def _suffix() -> Mode:
    account = bailian.Account(delays=bailian.Delays().scaled(PACE))
    return Mode(
        "suffix",
        "bailian",
        account,
        bailian.create_emulator(account),
        {},
        {"api_key": account.api_key},
        ("POST", r"/deployments$"),
        lambda _: {"model": "qwen3-8b", "plan": "mu", "template": "MU1", "capacity": {"units": 4}},
        lambda: {one.id: one.body["name"] for one in account.ever_made},
        (),
        lambda dice: {"units": 4 * dice.randint(1, 8)},
    )


def _list_only() -> Mode:
    return _alayanew("list_only", alayanew.Switches(create_names_id=False))


def _none() -> Mode:
    return _alayanew("none", alayanew.Switches(own_names=True))


def _alayanew(name: str, switches: alayanew.Switches) -> Mode:
    account = alayanew.Account(delays=alayanew.Delays().scaled(PACE), switches=switches)
    capacity = {"min_replicas": 1, "max_replicas": 2}
    spec = {"model": BASE_MODEL, "plan": "expert", "capacity": capacity, "resources": _GPU_WORKER}
    return Mode(
        name,
        "alayanew",
        account,
        alayanew.create_emulator(account),
        {"vks_id": "vcacb50arkk4", "gpu_type": "nvidia.com/gpu-l40s"},
        {"access_key": account.access_key, "secret_key": account.secret_key},
        ("POST", r"/deployment/expert$"),
        lambda _: {**spec, "provider_options": {"headConfig": {"image": "vllm:0.9"}}},
        lambda: {one.id: _without_token(one.body["name"]) for one in account.ever_made},
        ("stop",),
        lambda dice: {"min_replicas": 1, "max_replicas": dice.randint(1, 4)},
    )


def _engine(name: str) -> dict[str, Any]:
    return {"image": "vllm:0.9", "port": 8000, "script": f"vllm serve /model --served-model-name {name}"}


def _without_token(name: str) -> str:
    return name.rpartition("-mp-")[0]
