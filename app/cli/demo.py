"""`modelport demo`: what `make run` calls. From nothing to a real chat model behind the gateway.

The gateway runs in this process, in the foreground; a thread beside it does, over HTTP only, what a
new user would do by hand: tenant, key, connection, deployment, wait, print how to call it. A second
start finds all of it in place.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.cli import serve
from app.cli.api import Api
from app.cli.errors import CommandFailed
from app.kit.logging import configure_logging
from app.lifespan.files import add_to_bootstrap, locked, read_bootstrap
from app.lifespan.options import ProcessOptions, Role
from app.settings import Settings

TENANT, CONNECTION, DEPLOYMENT = "demo", "this-host", "smollm2"
MODEL = "smollm2-135m-instruct"
_READY_SECONDS, _RUNNING_SECONDS = 60.0, 120.0


def command(host: str, port: int) -> None:
    settings = Settings.from_environment()
    configure_logging(level="warning" if settings.web.log_level == "info" else settings.web.log_level)
    listener = serve.listen(host, port)
    address = listener.getsockname()[:2]
    base_url = f"http://{f'[{address[0]}]' if ':' in address[0] else address[0]}:{address[1]}"
    data_dir = settings.host.data_dir
    say(f"modelport: database and gateway on {base_url} (data in {data_dir})")
    first = not (data_dir / "bootstrap.json").exists()
    threading.Thread(target=_introduce, args=(settings, base_url, first), daemon=True, name="demo").start()
    options = ProcessOptions(Role.ALL, address, data_dir / "access.log")
    serve.run(settings, listener, options, progress=lambda step: say(f"modelport: {step}"))
    say("modelport: stopped")


def say(text: str) -> None:
    print(text, flush=True)


def _introduce(settings: Settings, base_url: str, first: bool) -> None:
    started = time.monotonic()
    try:
        keys = Walkthrough(settings.host.data_dir, base_url, settings.security.admin_key).run()
    except CommandFailed as failed:
        print(f"modelport: the demo could not be set up: {failed}", file=sys.stderr, flush=True)
        return
    say(f"modelport: '{DEPLOYMENT}' is running ({time.monotonic() - started:.1f} s)")
    say(_snippets(base_url, settings.host.data_dir, keys if first else replace(keys, shown=False)))


@dataclass(frozen=True)
class Keys:
    admin: str
    tenant: str
    shown: bool = True


class Walkthrough:
    """The steps of a new user; each finds what an earlier start has left."""

    def __init__(self, data_dir: Path, base_url: str, admin_key: str | None) -> None:
        self._data_dir = data_dir
        self._base_url = base_url
        self._admin_key = admin_key

    def run(self) -> Keys:
        _until(self._ready, _READY_SECONDS, "the gateway is not ready")
        admin_key = self._admin_key or read_bootstrap(self._data_dir).get("admin_key")
        if admin_key is None:
            raise CommandFailed(
                f"its admin key is not in {self._data_dir}/bootstrap.json: set MODELPORT_ADMIN_KEY to one of your own"
            )
        admin = Api(self._base_url, admin_key)
        say("modelport: tenant, key and connection")
        tenant = admin.find("/api/v1/tenants", TENANT) or admin.post("/api/v1/tenants", {"name": TENANT})
        tenant_key = self._tenant_key(admin, tenant["id"])
        self._connection(admin)
        self._deployment(admin, tenant["id"])
        return Keys(admin_key, tenant_key)

    def _ready(self) -> bool:
        try:
            return bool(Api(self._base_url, "").get("/readyz")["status"] == "ready")
        except CommandFailed:
            return False

    def _tenant_key(self, admin: Api, tenant_id: str) -> str:
        """The kept key while it works; else a new one, kept for the next start's snippet."""
        kept = read_bootstrap(self._data_dir).get("tenant_key")
        if kept is not None and self._works(kept):
            return kept
        wanted = {"name": "demo", "scopes": ["inference", "read", "write"]}
        made: str = admin.post(f"/api/v1/tenants/{tenant_id}/api-keys", wanted)["secret"]
        with locked(self._data_dir):
            add_to_bootstrap(self._data_dir, tenant_key=made)
        return made

    def _works(self, key: str) -> bool:
        try:
            Api(self._base_url, key).get("/api/v1/me")
        except CommandFailed:
            return False
        return True

    def _connection(self, admin: Api) -> None:
        if admin.find("/api/v1/connections", CONNECTION) is None:
            settings = {"tenants": ["*"]}
            admin.post("/api/v1/connections", {"name": CONNECTION, "provider": "local", "settings": settings})

    def _deployment(self, admin: Api, tenant_id: str) -> None:
        path = f"/api/v1/deployments?tenant_id={tenant_id}"
        found = admin.find(path, DEPLOYMENT)
        if found is None:
            say(f"modelport: deploying {MODEL} on this host")
            wanted = {"name": DEPLOYMENT, "connection": CONNECTION, "model": MODEL, "tenant_id": tenant_id}
            found = admin.post("/api/v1/deployments", wanted)
        elif found["status"] in {"stopped", "failed"}:
            found = admin.post(f"/api/v1/deployments/{found['id']}/start", {})
        path = f"/api/v1/deployments/{found['id']}"
        _until(lambda: _is_running(admin.get(path)), _RUNNING_SECONDS, "the model did not become running")


def _is_running(deployment: dict[str, Any]) -> bool:
    if deployment["status"] == "failed":
        raise CommandFailed(f"the deployment failed: {deployment['status_reason']}")
    return bool(deployment["status"] == "running")


def _until(holds: Callable[[], bool], limit_seconds: float, otherwise: str) -> None:
    end = time.monotonic() + limit_seconds
    while not holds():
        if time.monotonic() > end:
            raise CommandFailed(f"{otherwise} after {limit_seconds:.0f} s")
        time.sleep(0.1)


def key_lines(keys: Keys, data_dir: Path) -> str:
    """The keys, when they are to be shown, and the line that puts the tenant's into the reader's shell."""
    kept = f"$({python()} -c \"import json; print(json.load(open('{data_dir}/bootstrap.json'))['tenant_key'])\")"
    secrets = (
        f"\n  admin key   {keys.admin}\n  tenant key  {keys.tenant}\n"
        f"  (shown this once; kept in {data_dir}/bootstrap.json)\n"
    )
    return f"""{secrets if keys.shown else ""}
Paste into another terminal:

  export MP_KEY={keys.tenant if keys.shown else kept}"""


def python() -> Path:
    """This interpreter, as short as it can be written in the reader's directory."""
    found = Path(sys.executable)
    return found.relative_to(Path.cwd()) if found.is_relative_to(Path.cwd()) else found


def _snippets(base_url: str, data_dir: Path, keys: Keys) -> str:
    return f"""{key_lines(keys, data_dir)}

  curl -N {base_url}/v1/chat/completions -H "Authorization: Bearer $MP_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "{DEPLOYMENT}", "stream": true, "max_tokens": 60,
         "messages": [{{"role": "user", "content": "Say hello."}}]}}'

{python()} - <<'END'
import os
from openai import OpenAI
client = OpenAI(base_url="{base_url}/v1", api_key=os.environ["MP_KEY"])
for chunk in client.chat.completions.create(
    model="{DEPLOYMENT}", max_tokens=60, stream=True, messages=[{{"role": "user", "content": "Say hello."}}]):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
END

API and docs: {base_url}/docs   Ctrl-C stops everything."""
