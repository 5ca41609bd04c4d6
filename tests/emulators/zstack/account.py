"""The emulated installation: its groups and machines, the life of each, its jobs, and what is billed.

A group's life is a list of (from when, status); reading it at a moment is all that "advancing" means, so
that nothing runs in the background and a test owns the time by owning the clock.

    deploy accepted ─▶ Deploying ─▶ ConfigSettingUp ─▶ ServiceBootingUp ─▶ Running     (its job ends meanwhile)
    restart         ─▶ Starting ─▶ Running
    delete          ─▶ gone when its job ends; the machine is Destroyed, and gone once it is expunged

The vendor publishes no transitions; they are inferred.
"""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from tests.emulators.faults import Faults
from tests.emulators.forward import Forward
from tests.emulators.ledger import Ledger
from tests.emulators.lives import Life, Paces
from tests.emulators.zstack import catalog
from tests.emulators.zstack.refusal import Refusal

_UUID = re.compile(r"[0-9a-f]{8}[0-9a-f]{4}[1-5][0-9a-f]{3}[89ab][0-9a-f]{3}[0-9a-f]{12}")
_JOBS_KEPT_SECONDS = 10_800.0


@dataclass(frozen=True)
class Delays(Paces):
    """Seconds that jobs and statuses last."""

    job: float = 1.0
    deploying: float = 3.0
    setting_up: float = 1.0
    booting: float = 1.0
    starting: float = 2.0


@dataclass
class Switches:
    """Where the vendor's sources disagree or say nothing, and what an installation can be like.

    `sessions_checked`: of a change, when its job runs (as the server's source reads), or at once.
    `hidden_seconds`: a new group is invisible for so long. `left_behind`: a failed create leaves a group in
    Unknown. `recycle_bin`: machines of a deleted group stay as Destroyed. `resource_uuid` False: the chosen
    uuid is ignored. `job_ids` False: the chosen job id is. `stuck`: the status that every group shows.
    `address`: which of an instance's addresses are shown. `engine`: status of every answer of an engine.
    """

    sessions_checked: Literal["job", "at_once"] = "job"
    one_session: bool = False
    session_limit: int = 500
    hidden_seconds: float = 0.0
    left_behind: bool = False
    recycle_bin: bool = False
    resource_uuid: bool = True
    job_ids: bool = True
    stuck: str | None = None
    page_cap: int = 1000
    address: Literal["url", "urlMaps", "internalUrl", "bare", "none"] = "url"
    engine: int | None = None
    lists: bool = True
    adapters: tuple[str, ...] = ()
    nodes: int = 1
    iso_dates: bool = False
    extra_fields: bool = False
    bare: bool = False


@dataclass
class Job:
    """A change: from `ends_at` on it has that result, or that error."""

    ends_at: float
    result: dict[str, Any] = field(default_factory=dict)
    error: Refusal | None = None


@dataclass
class Group(Life):
    """A model service instance group. `gone_at`: when there is none any more."""

    uuid: str
    body: dict[str, Any]
    service_uuid: str
    made_at: float
    life: list[tuple[float, str]]
    served: str
    gone_at: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    machine: str = field(default_factory=lambda: uuid.uuid4().hex)

    def there(self, now: float) -> bool:
        return self.gone_at is None or now < self.gone_at


@dataclass
class Session:
    made_at: float
    ends_at: float


@dataclass
class Account:
    """`expunged` holds machines that are out of the recycle bin, `engine_key` what an engine wants to be sent."""

    account_name: str = "admin"
    password: str = "FakePassword1!"
    access_key_id: str = "FakeAccessKeyId00001"
    access_key_secret: str = "FakeAccessKeySecret00001"
    clock: Callable[[], float] = time.time
    wall: Callable[[], float] = time.time
    """What signatures are checked against; tests that own `clock` leave this one alone."""
    session_seconds: float = 7200.0
    delays: Delays = field(default_factory=Delays)
    switches: Switches = field(default_factory=Switches)
    faults: Faults = field(default_factory=Faults)
    forward: Forward | None = None
    ledger: Ledger = field(default_factory=Ledger)
    journal: list[dict[str, Any]] = field(default_factory=list)
    services: list[dict[str, Any]] = field(default_factory=catalog.services)
    models: list[dict[str, Any]] = field(default_factory=catalog.models)
    sessions: dict[str, Session] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    expunged: set[str] = field(default_factory=set)
    revoked: bool = False
    fail_next: str | None = None

    # Sessions

    def login(self) -> dict[str, Any]:
        now = self.clock()
        living = {key: one for key, one in self.sessions.items() if one.ends_at > now}
        if len(living) >= self.switches.session_limit:
            raise Refusal("ID.1006", "Login sessions hit the limit")
        self.sessions = {} if self.switches.one_session else living
        session = uuid.uuid4().hex
        self.sessions[session] = Session(now, now + self.session_seconds)
        dates = {"createDate": self.date(now), "expiredDate": self.date(now + self.session_seconds)}
        return {"uuid": session, "accountUuid": "3" * 32, "userUuid": "3" * 32, **dates}

    def knows(self, session: str) -> bool:
        held = self.sessions.get(session)
        return held is not None and held.ends_at > self.clock() and not self.revoked

    def end_sessions(self) -> None:
        self.sessions.clear()

    # Jobs

    def job(self, job_id: str) -> Job | None:
        """None for one that was never begun, or whose result is not kept any more."""
        held = self.jobs.get(job_id)
        return None if held is None or self.clock() > held.ends_at + _JOBS_KEPT_SECONDS else held

    # Groups

    def living(self) -> list[Group]:
        now = self.clock()
        hidden = self.switches.hidden_seconds
        return [one for one in self.groups if one.there(now) and now >= one.made_at + hidden]

    def get(self, group_uuid: str) -> Group:
        found = next((one for one in self.groups if one.uuid == group_uuid and one.there(self.clock())), None)
        if found is None:
            raise Refusal("SYS.1003", f"cannot find ModelServiceInstanceGroup[uuid:{group_uuid}]")
        return found

    def deploy(self, service_uuid: str, body: dict[str, Any]) -> Group | Refusal:
        """What a deploy's job comes to; a refusal in it may still leave a group behind."""
        service = next((one for one in self.services if one["uuid"] == service_uuid), None)
        _check(self, service, body)
        chosen = body.get("resourceUuid")
        if self.switches.resource_uuid and chosen and any(one.uuid == chosen for one in self.groups):
            raise Refusal("SYS.1006", f"Duplicate entry '{chosen}' for key 'PRIMARY'")
        now = self.clock()
        uuid_ = chosen if chosen and self.switches.resource_uuid else uuid.uuid4().hex
        failed, self.fail_next = self.fail_next, None
        group = Group(uuid_, body, service_uuid, now, [(now, "Deploying")], self._served(body, service or {}))
        self.groups.append(group)
        self.ledger.open(group.uuid, {"replicas": 1}, now)
        if failed is not None:
            return self._failed(group, failed)
        delays = self.delays
        group.becomes(
            now,
            (delays.deploying, "ConfigSettingUp"),
            (delays.setting_up, "ServiceBootingUp"),
            (delays.booting, "Running"),
        )
        return group

    def restart(self, group_uuid: str) -> None:
        group, now = self.get(group_uuid), self.clock()
        group.becomes(now, (self.delays.job, "Starting"), (self.delays.starting, "Running"))

    def delete(self, group_uuid: str) -> None:
        """As the platform does of what does not exist: nothing, and it succeeds."""
        now = self.clock()
        for group in self.groups:
            if group.uuid == group_uuid and group.gone_at is None:
                group.gone_at = now + self.delays.job
                self.ledger.close(group.uuid, group.gone_at)
                if self.switches.recycle_bin:
                    self.ledger.open(f"disk of {group.machine}", {"disks": 1}, group.gone_at)

    def machine_state(self, machine: str) -> str | None:
        group = next((one for one in self.groups if one.machine == machine), None)
        if group is None or machine in self.expunged:
            return None
        if group.there(self.clock()):
            return "Running"
        return "Destroyed" if self.switches.recycle_bin else None

    def expunge(self, machine: str) -> None:
        if self.machine_state(machine) != "Destroyed":
            raise Refusal("SYS.1005", f"vm[uuid:{machine}] is not in state Destroyed")
        self.expunged.add(machine)
        self.ledger.close(f"disk of {machine}", self.clock())

    def shown_status(self, group: Group) -> str:
        return self.switches.stuck or group.status(self.clock())

    def date(self, moment: float) -> str:
        """Gson's form in the server's zone, which here is UTC+8."""
        local = datetime.fromtimestamp(moment + 8 * 3600, UTC)
        if self.switches.iso_dates:
            return local.strftime("%Y-%m-%dT%H:%M:%S")
        return local.strftime("%b %d, %Y %I:%M:%S %p")

    def _served(self, body: dict[str, Any], service: dict[str, Any]) -> str:
        model = next((one for one in self.models if one["uuid"] == body.get("modelUuid")), None)
        return str(model["name"]) if model else f"/models/{service.get('name', 'own')}".replace(" ", "-")

    def _failed(self, group: Group, details: str) -> Refusal:
        ends_at = self.clock() + self.delays.job
        self.ledger.close(group.uuid, ends_at)
        if self.switches.left_behind:
            group.becomes(self.clock(), (self.delays.job, "Unknown"))
        else:
            group.gone_at = ends_at
        return Refusal("SYS.1006", "failed to deploy the model service", cause=details)


def _check(account: Account, service: dict[str, Any] | None, body: dict[str, Any]) -> None:
    for name in ("zoneUuid", "name", "type"):
        if not body.get(name):
            raise Refusal("SYS.1007", f"field[{name}] of APIDeployModelServiceMsg is mandatory, can not be null")
    if body["type"] not in {"VirtualMachine", "Container"}:
        raise Refusal("SYS.1007", "valid values of field[type] are [VirtualMachine, Container]")
    if body["zoneUuid"] != catalog.ZONE:
        raise Refusal("SYS.1003", f"cannot find Zone[uuid:{body['zoneUuid']}]")
    if service is None:
        raise Refusal("SYS.1003", "cannot find ModelService")
    if "modelUuid" in body and not any(one["uuid"] == body["modelUuid"] for one in account.models):
        raise Refusal("SYS.1003", f"cannot find Model[uuid:{body['modelUuid']}]")
    if "resourceUuid" in body and not _UUID.fullmatch(body["resourceUuid"]):
        raise Refusal("SYS.1007", "resourceUuid is not a valid uuid")


def new_job_id() -> str:
    return secrets.token_hex(16)
