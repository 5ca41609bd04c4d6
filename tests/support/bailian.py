"""A connection to an emulated Bailian account, and the account with short lives."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from app.domain.connection import Connection, ProviderKind
from app.domain.deployment import CreateDevice, DeploymentSpec, Observation
from app.kit.http import HttpVendorClient, VendorResponse
from app.kit.net import AddressPolicy
from app.providers.base import Device, OpenConnection
from app.providers.platforms.bailian.config import BailianCredentials, BailianSettings
from app.providers.platforms.bailian.provider import BailianProvider
from tests.emulators.bailian import Account
from tests.support.clock import Clock

BAILIAN = BailianProvider()
DEVICE = Device(CreateDevice.SUFFIX, "mp-01hzzzzzzzzzzzzzzzzzzzzzzz")
SPEC = DeploymentSpec("bot", "qwen3-8b", plan="mu", template="MU1", capacity={"units": 8})
PTU = DeploymentSpec("fast", "qwen-flash-2025-07-28", plan="ptu", capacity={"input_tpm": 10000, "output_tpm": 1000})
SPLIT = replace(SPEC, template="MU1-PD", capacity={"prefill_units": 4, "decode_units": 8})
UP = 7.0
"""Seconds until a new deployment runs, at the emulator's usual pace."""


def stopped_account(**given: Any) -> tuple[Account, Clock]:
    """An account whose time stands still until its clock is advanced."""
    clock = Clock()
    return Account(clock=clock, **given), clock


def connected(authority: str, api_key: str = Account.api_key, **settings: Any) -> OpenConnection:
    connection = Connection(
        "con_one",
        ProviderKind("bailian"),
        BailianSettings(base_url=f"http://{authority}", **settings).model_dump(mode="json"),
        BailianCredentials(api_key=api_key).model_dump(),
    )
    return OpenConnection(connection, HttpVendorClient(AddressPolicy(), exempt=authority))


async def made(opened: OpenConnection, spec: DeploymentSpec = SPEC, device: Device = DEVICE) -> str:
    return (await BAILIAN.create(opened, spec, device)).external_id


async def seen(opened: OpenConnection, external_id: str, spec: DeploymentSpec = SPEC) -> Observation:
    found = await BAILIAN.get(opened, external_id, spec)
    assert found is not None
    return found


class Answering:
    """A vendor client with one prepared answer."""

    def __init__(self, body: Any, status_code: int = 200, **headers: str) -> None:
        self.answer = VendorResponse(status_code, headers, json.dumps(body).encode())

    async def request(self, method: str, url: str, **_: Any) -> VendorResponse:
        return self.answer


def answered(body: Any, status_code: int = 200, **headers: str) -> OpenConnection:
    """A connection whose every call gets that answer."""
    return replace(connected("127.0.0.1:9"), http=Answering(body, status_code, **headers))
