"""An emulator of a ZStack AIOS installation and of the instances it runs, for tests and `make sandbox`.

    account = Account(account_name="admin", password="…")   what exists, with a ledger of billed seconds
    app = create_emulator(account)                          an ASGI app for any server, at the root of a port

`/zstack/v1/…` is the REST API: sessions by login (SHA-512 of the password), AccessKey signatures checked from
the bytes of the request, the whole `q` syntax, jobs for every change with ids of the caller's choice, and its
refusals in 503. `/svc/{instance}/v1/…` is an instance with an OpenAI-compatible engine, which
answers once the group runs. Written from ZStack's public server source and
documentation, independently of the adapter.

What can be turned, all of it while it runs:
- `account.delays`: how long jobs and statuses last; `Delays().scaled(0.01)` for tests.
- `account.switches` (`Switches`): when sessions are checked, a group that stays hidden or is left behind by a
  failed create, a recycle bin, resource uuids that are ignored, a status that sticks, form of dates, …
- `account.fail_next`: the details with which the job of the next deployment fails.
- `account.end_sessions()`, `account.revoked`: sessions end; credentials are refused.
- `account.faults.add(Fault(…))`: lost, cut and foreign answers, delays and throttling, by request.
- `account.clock`: Unix seconds; pass another one to own the time.
- `account.forward = Forward(…)`: chat is answered by a real OpenAI-compatible server.

`account.journal` holds the last requests. `account.ledger` says what was billed, and what still is: a group from
the moment its create is accepted until it is gone, and a destroyed machine's disks until it is expunged.
"""

from __future__ import annotations

from tests.emulators.faults import Fault, Order
from tests.emulators.forward import Forward
from tests.emulators.zstack.account import Account, Delays, Switches
from tests.emulators.zstack.app import create_emulator, running_emulator

__all__ = ["Account", "Delays", "Fault", "Forward", "Order", "Switches", "create_emulator", "running_emulator"]
