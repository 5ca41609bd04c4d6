"""An emulator of PAI ModelGallery, of EAS and of the gateway before each service, for tests and `make sandbox`.

    account = Account(access_key_id="LTAI…", access_key_secret="…")   what exists, with a ledger of billed seconds
    app = create_emulator(account)                                    an ASGI app for any server, at the root of a port

`/api/v1|v2/modelgallery` and `/api/v2/services` want an ACS3 signature, which `signature.py` checks from
the bytes of the request, as the platform does: signature, body hash, clock (15 minutes), nonce (once), STS
token. `/api/predict/{service}` is the gateway: 401 for a wrong token, 503 "no healthy upstream" until it
knows the way. Written from the vendor's pages and its SDKs, independently of the adapter.

What can be turned, all of it while it runs:
- `account.delays`: how long each status lasts; `Delays().scaled(0.01)` for tests.
- `account.switches` (`Switches`): shape of `Models`, how a taken name is refused, how long a new service
  stays invisible, a status that sticks, gateway answers (404, 408, 450), …
- `account.revoked`: the AccessKey is refused; `account.locked`: names that refuse stop and delete.
- `account.fail_next`: the message with which the next service fails.
- `account.faults.add(Fault(…))`: lost, cut and foreign answers, delays and throttling, by request.
- `account.clock`: Unix seconds; pass another one to own the time.
- `account.forward = Forward(…)`: chat is answered by a real OpenAI-compatible server.

`account.journal` holds the last requests. `account.ledger` says what was billed, and what still is.
"""

from __future__ import annotations

from tests.emulators.faults import Fault, Order
from tests.emulators.forward import Forward
from tests.emulators.pai.account import Account, Delays, Switches
from tests.emulators.pai.app import create_emulator, running_emulator

__all__ = ["Account", "Delays", "Fault", "Forward", "Order", "Switches", "create_emulator", "running_emulator"]
