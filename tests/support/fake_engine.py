"""A model server without a model, for tests of the `local` provider: run as the operator's command.

`fake_engine.py --host H --port P --name NAME [--fault exit|deaf|helper]`, key in ENGINE_API_KEY.
`exit`: dies at once, saying its key; `deaf`: ignores SIGTERM; `helper`: has a child of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

words = argparse.ArgumentParser()
for flag in ("--host", "--port", "--name", "--fault", "--size"):
    words.add_argument(flag)
given = words.parse_args()
key = os.environ["ENGINE_API_KEY"]

if given.fault == "exit":
    sys.exit(f"cannot serve {given.name}: my key is {key}, my home is {os.environ['HOME']}")
if given.fault == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if given.fault == "helper":
    subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(600)"])


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        allowed = self.path == "/health" or self.headers.get("authorization") == f"Bearer {key}"
        body = json.dumps({"data": [{"id": given.name}]}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer((given.host, int(given.port)), Handler).serve_forever()
