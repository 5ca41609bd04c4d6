"""A start that cannot work: one clear line on stderr, exit 2, and nothing left running.

A wrong setting is refused before anything is opened: of those only one is shown with a process of its own.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.cli import main
from tests.support.gateway import command, environment, free_port

Refused = Callable[[str, str], str]


def refusal(data_dir: Path, *arguments: str, **settings: str) -> str:
    """The one line of a `modelport serve` that refuses to start."""
    ran = subprocess.run(
        command("serve", *(arguments or ("--port", str(free_port())))),
        env=environment(data_dir, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return the_line(ran.returncode, ran.stderr)


def the_line(exit_code: object, stderr: str) -> str:
    assert exit_code == 2, stderr
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("modelport: ")
    return lines[0]


@pytest.fixture
def refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """The same of one wrong setting, in this process."""

    def line(name: str, value: str) -> str:
        for known in [one for one in os.environ if one.startswith("MODELPORT_")]:
            monkeypatch.delenv(known)
        for one, text in environment(data_dir, **{name: value}).items():
            monkeypatch.setenv(one, text)
        monkeypatch.setattr(sys, "argv", command("serve")[2:])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not data_dir.exists()
        return the_line(ended.value.code, capsys.readouterr().err)

    return line


def test_a_busy_port_is_named(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert port in refusal(data_dir, "--port", port)


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    assert "MODELPORT_DATA_DIR" in refusal(blocked / "data")


def test_data_of_another_postgres_major_is_named(data_dir: Path) -> None:
    other = data_dir / "postgres-12"
    other.mkdir(parents=True)
    (other / "PG_VERSION").write_text("12\n")
    line = refusal(data_dir)
    assert "12" in line


@pytest.mark.parametrize("content", ["k1:bm90 a key", "k1:" + base64.b64encode(b"short").decode(), "\xff"])
def test_a_damaged_master_key_is_named(data_dir: Path, content: str) -> None:
    data_dir.mkdir()
    (data_dir / "master_keys").write_text(content, "latin-1")
    assert f"{data_dir / 'master_keys'} is damaged" in refusal(data_dir)


@pytest.mark.parametrize(
    "keys",
    [
        "k1:" + base64.b64encode(bytes(32)).decode(),
        "k1:" + base64.b64encode(os.urandom(16)).decode(),
        "k1",
        ":" + base64.b64encode(os.urandom(32)).decode(),
    ],
    ids=["all zeros", "16 bytes", "no key", "no id"],
)
def test_a_weak_master_key_is_refused(refused: Refused, keys: str) -> None:
    assert "MODELPORT_MASTER_KEYS" in refused("master_keys", keys)


def test_an_external_database_needs_a_master_key(data_dir: Path) -> None:
    line = refusal(data_dir, database_url="postgresql://nobody@127.0.0.1:9/none")
    assert "MODELPORT_MASTER_KEYS is required" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("admin_key", "short"),
        ("poll_interval_seconds", "fast"),
        ("migrate_on_start", "perhaps"),
        ("database_url", "mysql://localhost/x"),
        ("upstream_allow_cidrs", "10.0.0.0/33"),
    ],
)
def test_a_wrong_setting_is_named(refused: Refused, name: str, value: str) -> None:
    assert f"MODELPORT_{name.upper()}" in refused(name, value)
