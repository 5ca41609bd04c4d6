"""An emulator of AlayaNeW serverless inference and of the services behind it, for tests and `make sandbox`.

    account = Account(access_key="AK…", secret_key="…")   what exists, with a ledger of billed seconds
    app = create_emulator(account)                        an ASGI app for any server, at the root of a port

`/api/serverless-infer/v1/deployment` manages services, `/api/model/v1` and `/api/aidc/v1` list what there
is, `/svc/{serviceId}/v1` is the data plane of one service. Written from the vendor's pages,
independently of the adapter. As there, two services may have one name, and nothing starts a stopped one.

What can be turned, all of it while it runs:
- `account.delays`: how long each status lasts; `Delays().scaled(0.01)` for tests.
- `account.switches` (`Switches`): spellings and shapes where the vendor's pages differ, errors as HTTP 4xx,
  creates without an id, how long a new service stays invisible, a status that sticks, …
- `account.fail_next`: the next service fails instead of running.
- `account.faults.add(Fault(…))`: lost, cut and foreign answers, delays and throttling, by request.
- `account.secret_key`: change it, and the key pair that everybody has is revoked.
- `account.clock`: Unix seconds; pass another one to own the time.
- `account.forward = Forward(…)`: chat is answered by a real OpenAI-compatible server.

`account.journal` holds the last requests. `account.ledger` says what was billed, and what still is.
"""

from __future__ import annotations

from tests.emulators.alayanew.account import Account, Delays, Switches
from tests.emulators.alayanew.app import create_emulator, running_emulator
from tests.emulators.faults import Fault, Order
from tests.emulators.forward import Forward

__all__ = ["Account", "Delays", "Fault", "Forward", "Order", "Switches", "create_emulator", "running_emulator"]
