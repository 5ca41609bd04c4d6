"""An emulator of Bailian's deployment API and of the service behind it, for tests and `make sandbox`.

    account = Account(api_key="sk-…")           what exists, with a ledger of billed seconds
    app = create_emulator(account)              an ASGI app for any server, at the root of a port

`/api/v1` manages deployments, `/compatible-mode/v1` and the native generation call serve them.
Written from the vendor's pages and the captures of its SDK, independently of the adapter.

What can be turned, all of it while it runs:
- `account.delays`: how long each status lasts; `Delays().scaled(0.01)` for tests.
- `account.switches` (`Switches`): shapes of answers, errors inside HTTP 200, how ids are composed,
  how long a new deployment stays invisible, a status that sticks, …
- `account.fail_next`: the reason with which the next deployment fails.
- `account.faults.add(Fault(…))`: lost, cut and foreign answers, delays and throttling, by request.
- `account.clock`: Unix seconds; pass another one to own the time.
- `account.forward = Forward(…)`: chat is answered by a real OpenAI-compatible server.

`account.journal` holds the last requests. `account.ledger` says what was billed, and what still is.
"""

from __future__ import annotations

from tests.emulators.bailian.account import Account, Delays, Switches
from tests.emulators.bailian.app import create_emulator, running_emulator
from tests.emulators.faults import Fault, Order
from tests.emulators.forward import Forward

__all__ = ["Account", "Delays", "Fault", "Forward", "Order", "Switches", "create_emulator", "running_emulator"]
