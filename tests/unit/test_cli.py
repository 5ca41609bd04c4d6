"""The command line: whatever goes wrong is one line on stderr and an exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from app import cli
from app.cli.api import Api
from app.cli.demo import Walkthrough
from app.cli.errors import CommandFailed
from app.settings import Settings


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """The address of a server that answers everything with this body."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def modelport(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | str | None]:
    """Runs a command; its exit code."""

    def run(*arguments: str) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["modelport", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
    return run


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("chat",),
        ("serve", "--port", "high"),
        ("serve", "--role", "boss"),
        ("serve", "--loud"),
        ("config", "check", "--output", "xml"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_one_line_and_exit_2(
    modelport: Callable[..., int | str | None], arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert modelport(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("modelport: ")
    assert line != "modelport: "


def test_help_is_exit_0_and_ctrl_c_is_130(
    modelport: Callable[..., int | str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> Settings:
        raise KeyboardInterrupt

    assert modelport("serve", "--help") in {0, None}
    monkeypatch.setattr(Settings, "from_environment", interrupted)
    assert modelport("config", "check") == 130


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [(["--help"], 0), (["chat", "smollm2", "Hello.", "--url", "ftp://127.0.0.1", "--key", "mp_x"], 2)],
    ids=["--help", "chat"],
)
def test_help_and_chat_do_not_load_the_gateway(arguments: list[str], exit_code: int) -> None:
    code = """if True:
        import sys
        from app.cli import main
        try:
            main()
        finally:
            print("loaded:", *{"sqlalchemy", "fastapi", "uvicorn"} & set(sys.modules))
    """
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == exit_code, ran.stderr
    assert ran.stdout.splitlines()[-1].strip() == "loaded:"


def test_a_demo_whose_admin_key_is_lost_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its database has an admin, and `bootstrap.json` is gone."""
    monkeypatch.setattr(Walkthrough, "_ready", lambda _: True)
    with pytest.raises(CommandFailed, match="MODELPORT_ADMIN_KEY"):
        Walkthrough(tmp_path, "http://127.0.0.1:1", None).run()


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("ftp://127.0.0.1", "mp_x"),
        ("http://127.0.0.1:99999", "mp_x"),
        ("http://127.0.0.1:port", "mp_x"),
        ("http://[::1", "mp_x"),
        ("http://127.0.0.1", "mp_…"),
        ("http://127.0.0.1", "mp_x\n"),
    ],
)
def test_what_cannot_be_asked_like_that_is_exit_2(url: str, key: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        Api(url, key).get("/api/v1/me")
    assert failed.value.exit_code == 2


def test_what_is_no_gateway_is_told() -> None:
    with answering(b"<html>") as url, pytest.raises(CommandFailed, match="is no gateway"):
        Api(url, "mp_x").post("/api/v1/tenants", {})
    with answering(b"data: <html>\n\n") as url, pytest.raises(CommandFailed, match="is no gateway"):
        list(Api(url, "mp_x").stream("/v1/chat/completions", {}))


def test_a_stream_without_its_end_is_no_answer() -> None:
    whole = b'data: {"n": 1}\n\ndata: {"n": 2}\n\ndata: [DONE]\n\n'
    with answering(whole) as url:
        assert list(Api(url, "mp_x").stream("/v1/chat/completions", {})) == [{"n": 1}, {"n": 2}]
    with answering(whole[:30]) as url, pytest.raises(CommandFailed, match="broke off"):
        list(Api(url, "mp_x").stream("/v1/chat/completions", {}))
