"""What the sandbox prints once it is up: commands that work as they are pasted, in the order of a first tour."""

from __future__ import annotations

import json
from pathlib import Path

from app.cli.demo import DEPLOYMENT, Keys, key_lines, python
from tests.emulators.sandbox.platforms import EXAMPLES, Platform


def tour(base_url: str, data_dir: Path, keys: Keys, platforms: list[Platform], gateway_pid: int) -> str:
    names = [f"on-{one.kind}" for one in platforms]
    deploys = "\n".join(f"api $MP/deployments -d '{_body(one.kind)}'" for one in platforms)
    desks = "\n".join(f"curl -s {one.url}/_ledger; echo   # {one.kind}" for one in platforms)
    return f"""{key_lines(keys, data_dir).replace("  export", "export")}
MP={base_url}/api/v1
api() {{ curl -sS -H "Authorization: Bearer $MP_KEY" -H "Content-Type: application/json" "$@"; echo; }}
id_of() {{ api "$MP/deployments?page_size=100" | {python()} -c \\
  "import json,sys; print(next(one['id'] for one in json.load(sys.stdin)['data'] if one['name'] == '$1'))"; }}

# Where can it run, in which plan, in which steps? Then one deployment on each platform, running in seconds.
api "$MP/catalog/models?q=qwen3-8b"
{deploys}
curl -sN -H "Authorization: Bearer $MP_KEY" $MP/deployments/$(id_of {names[0]})/watch   # Ctrl-C ends it

# Chat with each. The tokens are real: the emulators ask '{DEPLOYMENT}' of this gateway.
for name in {" ".join(names)}; do
  api {base_url}/v1/chat/completions -d '{{"model": "'$name'", "max_tokens": 30,
    "messages": [{{"role": "user", "content": "Say hello."}}]}}'
done
{python()} - <<'END'
import os
from openai import OpenAI
client = OpenAI(base_url="{base_url}/v1", api_key=os.environ["MP_KEY"])
for chunk in client.chat.completions.create(
    model="{names[0]}", max_tokens=60, stream=True, messages=[{{"role": "user", "content": "Say hello."}}]):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
END

# Change them, where the platform can. Kill the gateway meanwhile: another one is started and goes on.
api $MP/deployments/$(id_of on-bailian)/scale -d '{{"capacity": {{"units": 8}}}}'
api $MP/deployments/$(id_of on-alayanew)/scale -d '{{"capacity": {{"min_replicas": 1, "max_replicas": 3}}}}'
api $MP/deployments/$(id_of on-pai)/stop -d '{{}}'
kill -9 {gateway_pid}
api $MP/deployments   # until it is stopped; then
api $MP/deployments/$(id_of on-pai)/start -d '{{}}'

# Let the platform lose its answer to the next create: it is found again, not made twice.
curl -s {platforms[0].url}/_faults -d '{{"order": "lose", "method": "POST", "path": "/deployments$"}}'; echo
api $MP/deployments -d '{_body(platforms[0].kind, name="lost-and-found")}'

# Delete all, and see that nothing is billed any more.
for name in {" ".join(names)} lost-and-found; do api -X DELETE $MP/deployments/$(id_of $name); done
{desks}

API and docs: {base_url}/docs   Ctrl-C stops everything."""


def _body(kind: str, *, name: str | None = None) -> str:
    return json.dumps({"name": name or f"on-{kind}", "connection": kind, **EXAMPLES[kind]})
