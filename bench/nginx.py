"""nginx as the limit: a plain proxy that checks nothing and counts nothing, on the gateway's core."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.certificate import NAME, Certificate
from bench.machine import GATEWAY_CPU, Group, on_cpu, tree
from bench.subjects import SERVED_MODEL, Subject
from bench.tools import Mock
from tests.support.gateway import free_port, until

HOW_TO_INSTALL = "apt-get install nginx-light (its service need not run)"
_CONFIGURATION = """
{user}worker_processes 1; daemon off; pid nginx.pid; error_log nginx.log warn; worker_rlimit_nofile {files};
events {{ worker_connections 16000; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 8m; client_max_body_size 16m;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
  upstream plain {{ server 127.0.0.1:{mock_port}; keepalive 512; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://plain; }} }}
  {tls}
}}
"""
_TLS = """
  upstream secure {{ server 127.0.0.1:{mock_port}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass https://secure; proxy_ssl_verify on; proxy_ssl_trusted_certificate {certificate};
      proxy_ssl_name {name}; proxy_ssl_server_name on;
    }}
  }}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """The running server's two ways in; `tls` None where the mock speaks none."""

    plain: Subject
    tls: Subject | None


def version() -> str | None:
    """None: not installed."""
    program = _program()
    if program is None:
        return None
    return subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr.strip().rpartition("/")[2]


@contextmanager
def running_nginx(directory: Path, mock: Mock, certificate: Certificate, *, files: int) -> Iterator[Nginx]:
    program = _program()
    assert program is not None
    directory.mkdir()
    port, tls_port = free_port(), free_port()
    tls = (
        ""
        if mock.tls_port is None
        else _TLS.format(mock_port=mock.tls_port, port=tls_port, certificate=certificate.chain, name=NAME)
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(
        _CONFIGURATION.format(user=user, files=files, mock_port=mock.port, port=port, tls=tls)
    )
    with on_cpu(GATEWAY_CPU):
        process = subprocess.Popen([program, "-p", directory, "-c", directory / "nginx.conf"])
    try:
        until(lambda: _listens(process, port), "nginx listens")
        group = Group(tuple(tree(process.pid)))
        made = [
            Subject(f"nginx{suffix}", number, "none", SERVED_MODEL, group, Group(()), directory / f"bodies{suffix}")
            for suffix, number in (("", port), ("-tls", tls_port))
        ]
        yield Nginx(made[0], made[1] if tls else None)
    finally:
        process.terminate()
        process.wait()


def _program() -> str | None:
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "nginx ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
