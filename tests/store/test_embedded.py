"""The embedded database: a real server, real processes, real `kill -9`.

Most tests use one cluster in turn, each leaves it stopped: so a test costs the start of a server
(30 ms), not the making of a cluster.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from app.store.embedded import EmbeddedPostgres, EmbeddedPostgresError, backup
from app.store.embedded.binaries import find_binaries, run
from app.store.embedded.layout import Layout, socket_path
from app.store.embedded.locks import LockFile
from app.store.embedded.processes import kill, living_postmaster, server_processes
from tests.support.embedded_processes import HANG_SECONDS, computing_backend, kill_and_wait, stopped, until
from tests.support.embedded_user import REPOSITORY, UserProcess, ask, user_command

_DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
_NOBODY = 65534
_AS_ROOT_OF_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")


_NO_VISITS = ("CREATE TABLE IF NOT EXISTS visits (at timestamptz DEFAULT now())", "TRUNCATE visits")
_ONE_VISIT = (*_NO_VISITS, "INSERT INTO visits DEFAULT VALUES")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("embedded")
    _open(directory).close()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def data_dir(made_once: Path) -> Iterator[Path]:
    """A data directory with a stopped cluster, which other tests used before."""
    yield made_once
    _clear(made_once)


@pytest.fixture
def fresh_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory that does not exist yet."""
    yield tmp_path / "data"
    _clear(tmp_path / "data")
    shutil.rmtree(tmp_path / "data", ignore_errors=True)


@pytest.fixture
def unread_dir(fresh_dir: Path) -> Path:
    """A data directory whose cluster is never opened: for refusals that come before."""
    cluster = _layout(fresh_dir).cluster
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").touch()
    return fresh_dir


def _clear(data_dir: Path) -> None:
    """End what a failed test left running."""
    for cluster in data_dir.glob("postgres-1?"):
        kill(server_processes(cluster))
    shutil.rmtree(_layout(data_dir).socket_directory, ignore_errors=True)


def _layout(data_dir: Path) -> Layout:
    return Layout(data_dir.resolve(), find_binaries(None).major)


def _open(data_dir: Path, *, watch: bool = False) -> EmbeddedPostgres:
    return EmbeddedPostgres.open(data_dir, durable=False, watch=watch)


def _postmaster(data_dir: Path) -> int:
    pid = living_postmaster(_layout(data_dir).cluster)
    assert pid is not None, "the server does not run"
    return pid


def _is_stopped(data_dir: Path) -> bool:
    return not server_processes(_layout(data_dir).cluster)


def _answers_again(dsn: str) -> bool:
    with suppress(OSError, asyncpg.PostgresError):
        return bool(ask(dsn, "SELECT 1") == 1)
    return False


@contextmanager
def _moved_away(path: Path) -> Iterator[None]:
    elsewhere = path.rename(path.with_name("elsewhere"))
    yield
    elsewhere.rename(path)


@contextmanager
def _initdb_that_does_not_end(directory: Path) -> Iterator[Path]:
    """Programs of which initdb makes a cluster, and ends when the block does."""
    programs, held = directory / "programs", directory / "held"
    programs.mkdir()
    held.touch()
    real = find_binaries(None).directory
    for program in ("postgres", "psql", "pg_dump"):
        (programs / program).symlink_to(real / program)
    initdb = programs / "initdb"
    initdb.write_text(f'#!/bin/sh\n{real}/initdb "$@"\nwhile [ -e {held} ]; do sleep 0.05; done\n')
    initdb.chmod(0o755)
    try:
        yield programs
    finally:
        held.unlink()


def _refusal(data_dir: Path, *, pg_bin_dir: Path | None = None) -> str:
    """The line with which open refuses; one line it must be."""
    with pytest.raises(EmbeddedPostgresError) as caught:
        EmbeddedPostgres.open(data_dir, pg_bin_dir=pg_bin_dir, durable=False).close()
    assert str(caught.value) == caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


class TestOneUser:
    def test_the_first_open_makes_everything_and_close_stops_it(self, fresh_dir: Path) -> None:
        said: list[str] = []
        postgres = EmbeddedPostgres.open(fresh_dir, on_progress=said.append)
        try:
            assert ask(postgres.dsn, "SELECT current_database()") == "modelport"
            assert ask(postgres.dsn_for("postgres"), "SELECT current_database()") == "postgres"
            assert ask(postgres.dsn, "SHOW fsync") == "on"
            assert [line.split()[0] for line in said] == ["creating", "starting"]
        finally:
            postgres.close()
        postgres.close()
        assert _is_stopped(fresh_dir)
        assert not _layout(fresh_dir).socket_directory.exists()

    def test_rows_survive_a_close_and_a_dropped_database_is_made_again(self, data_dir: Path) -> None:
        with _open(data_dir) as postgres:
            ask(postgres.dsn, *_ONE_VISIT, "SELECT 1")
        with _open(data_dir) as postgres:
            assert ask(postgres.dsn, "SELECT count(*) FROM visits") == 1
            ask(postgres.dsn_for("postgres"), "DROP DATABASE modelport", "SELECT 1")
        with _open(data_dir) as postgres:
            assert ask(postgres.dsn, "SELECT to_regclass('visits')") is None

    def test_the_server_runs_with_our_options(self, data_dir: Path) -> None:
        expected = {
            "listen_addresses": "",
            "max_connections": "200",
            "shared_buffers": "64MB",
            "TimeZone": "UTC",
            "idle_in_transaction_session_timeout": "1min",
            "client_connection_check_interval": "5s",
            "log_min_error_statement": "panic",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        with _open(data_dir) as postgres:
            assert {name: ask(postgres.dsn, f"SHOW {name}") for name in expected} == expected

    def test_the_server_inherits_neither_our_keys_nor_our_locks(
        self, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A secret in its environment or a lock kept alive by it would outlive the process that had it."""
        monkeypatch.setenv("MODELPORT_ADMIN_KEY", "not-for-children")
        with _open(data_dir):
            process = Path("/proc", str(_postmaster(data_dir)))
            assert b"not-for-children" not in (process / "environ").read_bytes()
            opened = set()
            for entry in (process / "fd").iterdir():
                with suppress(FileNotFoundError):  # closed meanwhile
                    opened.add(entry.readlink().name)
        assert "server.lock" in opened
        assert not opened & {"start.lock", "users.lock"}

    def test_a_long_log_is_put_aside_at_start(self, data_dir: Path) -> None:
        log = _layout(data_dir).log
        log.write_bytes(b"x" * (9 << 20))
        with _open(data_dir):
            assert log.stat().st_size < 1 << 20
        assert log.with_name(f"{log.name}.1").stat().st_size == 9 << 20

    def test_it_runs_on_the_binaries_of_debian_15(self, fresh_dir: Path) -> None:
        if not _DEBIAN_15.is_dir():
            pytest.skip("Debian's postgresql-15 is not installed")
        with EmbeddedPostgres.open(fresh_dir, pg_bin_dir=_DEBIAN_15, durable=False) as postgres:
            assert ask(postgres.dsn, "SHOW server_version").startswith("15.")
        assert (fresh_dir / "postgres-15" / "PG_VERSION").is_file()

    def test_it_runs_as_an_ordinary_user(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("every other test here does that already")
        become_nobody = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "--")
        if subprocess.run([*become_nobody, sys.executable, "-c", "import asyncpg"], check=False).returncode != 0:
            pytest.skip("this interpreter cannot be run by another user")
        with tempfile.TemporaryDirectory() as directory:
            os.chown(directory, _NOBODY, _NOBODY)
            with UserProcess(Path(directory), before=become_nobody) as other:
                assert other.opened_dsn().startswith("postgresql://postgres@/modelport?host=%2F")
                assert other.leave() == 0


class TestSeveralUsers:
    def test_a_second_user_joins_and_the_first_to_leave_leaves_it_up(self, data_dir: Path) -> None:
        first = _open(data_dir)
        pid = _postmaster(data_dir)
        with _open(data_dir) as second:
            assert _postmaster(data_dir) == pid
            first.close()
            assert ask(second.dsn, "SELECT 1") == 1
        assert _is_stopped(data_dir)

    def test_another_process_keeps_it_up_and_stops_it_when_it_leaves_last(self, data_dir: Path) -> None:
        postgres = _open(data_dir)
        with UserProcess(data_dir) as other:
            assert other.opened_dsn() == postgres.dsn
            postgres.close()
            assert ask(postgres.dsn, "SELECT 1") == 1
            assert other.leave() == 0
        assert _is_stopped(data_dir)

    def test_killed_users_leave_it_up_and_the_next_joins_it(self, data_dir: Path) -> None:
        with UserProcess(data_dir) as one, UserProcess(data_dir) as two:
            assert one.opened_dsn() == two.opened_dsn()
            pid = _postmaster(data_dir)
            one.kill()
            two.kill()
        with _open(data_dir) as postgres:
            assert _postmaster(data_dir) == pid
            assert ask(postgres.dsn, "SELECT 1") == 1
        assert _is_stopped(data_dir)

    def test_a_user_with_another_tmpdir_joins_the_running_server(self, data_dir: Path, tmp_path: Path) -> None:
        """It would otherwise look for the socket elsewhere, find nobody, and end a server in use."""
        with _open(data_dir) as postgres, UserProcess(data_dir, before=("env", f"TMPDIR={tmp_path}")) as other:
            pid = _postmaster(data_dir)
            assert other.opened_dsn() == postgres.dsn
            assert other.leave() == 0
            assert _postmaster(data_dir) == pid

    def test_a_forked_child_is_no_user(self, data_dir: Path) -> None:
        """Its copies of the descriptors would keep the locks, and its close would stop our server."""
        postgres = _open(data_dir)
        said, wait = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            os.close(wait[1])
            postgres.close()
            os.write(said[1], b"closed")
            os.read(wait[0], 1)
            os._exit(0)
        try:
            assert os.read(said[0], 6) == b"closed"
            assert ask(postgres.dsn, "SELECT 1") == 1
            postgres.close()
            assert _is_stopped(data_dir)
            _open(data_dir).close()
            assert _is_stopped(data_dir)
        finally:
            for descriptor in (*said, *wait):
                os.close(descriptor)
            assert os.waitpid(child, 0)[1] == 0

    def test_processes_that_race_to_open_and_close_all_succeed(self, data_dir: Path) -> None:
        with _open(data_dir) as postgres:
            ask(postgres.dsn, *_NO_VISITS, "SELECT 1")
        racers = [subprocess.Popen(user_command(data_dir, "visit", "3"), cwd=REPOSITORY) for _ in range(8)]
        # The lock is no queue: the first may come last, and two busy processors take 11 s for all.
        assert [racer.wait(timeout=3 * HANG_SECONDS) for racer in racers] == [0] * 8
        assert _is_stopped(data_dir)
        with _open(data_dir) as postgres:
            assert ask(postgres.dsn, "SELECT count(*) FROM visits") == 24


class TestCrashes:
    def test_a_killed_server_is_started_again_and_keeps_what_was_committed(self, data_dir: Path) -> None:
        with EmbeddedPostgres.open(data_dir, watch=False) as postgres:
            assert postgres.ensure_running() is False
            ask(postgres.dsn, *_ONE_VISIT, "SELECT 1")
            kill_and_wait(server_processes(_layout(data_dir).cluster))
            assert postgres.ensure_running() is True
            assert postgres.ensure_running() is False
            assert ask(postgres.dsn, "SELECT count(*) FROM visits") == 1

    def test_any_user_that_lives_restarts_it_by_itself(self, data_dir: Path) -> None:
        """The user that started it is killed too; the one that only joined brings it back."""
        with UserProcess(data_dir) as starter:
            starter.opened_dsn()
            with _open(data_dir, watch=True) as postgres:
                starter.kill()
                kill_and_wait(server_processes(_layout(data_dir).cluster))
                until(lambda: _answers_again(postgres.dsn))

    def test_a_server_too_busy_to_accept_is_not_taken_for_dead(self, data_dir: Path) -> None:
        with _open(data_dir) as postgres, stopped(_postmaster(data_dir)), ExitStack() as clients:
            path = str(socket_path(_layout(data_dir).socket_directory))
            with suppress(BlockingIOError):
                while True:
                    client = clients.enter_context(socket.socket(socket.AF_UNIX))
                    client.setblocking(False)
                    client.connect(path)
            assert postgres.ensure_running() is False

    def test_an_open_waits_while_the_server_recovers_from_the_loss_of_a_backend(self, data_dir: Path) -> None:
        """The postmaster lives on and refuses everybody until it has replayed its log."""
        with _open(data_dir) as postgres:
            for _ in range(3):
                with computing_backend(postgres.dsn) as backend:
                    kill_and_wait([backend])
                    _open(data_dir).close()

    def test_a_server_killed_while_it_starts_is_started_again(self, data_dir: Path, tmp_path: Path) -> None:
        real = find_binaries(None).directory
        for program in ("initdb", "psql", "pg_dump"):
            (tmp_path / program).symlink_to(real / program)
        killed = 'if [ "$1" != --version ] && mkdir "$0.once" 2>&-; then kill -9 $$; fi'
        (tmp_path / "postgres").write_text(f'#!/bin/sh\n{killed}\nexec {real}/postgres "$@"\n')
        (tmp_path / "postgres").chmod(0o755)
        with EmbeddedPostgres.open(data_dir, pg_bin_dir=tmp_path, durable=False) as postgres:
            assert (tmp_path / "postgres.once").is_dir()
            assert ask(postgres.dsn, "SELECT 1") == 1

    def test_orphans_of_a_dead_postmaster_do_not_stop_the_restart(self, data_dir: Path) -> None:
        """A backend that computes does not notice the death; two servers on one cluster would destroy it."""
        with _open(data_dir) as postgres, computing_backend(postgres.dsn) as orphan:
            kill_and_wait([_postmaster(data_dir)])
            assert orphan in server_processes(_layout(data_dir).cluster)
            assert postgres.ensure_running() is True
            assert orphan not in server_processes(_layout(data_dir).cluster)
            assert ask(postgres.dsn, "SELECT 1") == 1

    @pytest.mark.parametrize("whose", ["a zombie's", "a stranger's", "nobody's", "unreadable"])
    def test_a_stale_postmaster_pid_does_not_stop_the_start(self, data_dir: Path, whose: str) -> None:
        """PostgreSQL itself refuses for ever when the number in it belongs to a zombie or to a stranger."""
        layout = _layout(data_dir)
        with subprocess.Popen(["true" if whose == "a zombie's" else "cat"], stdin=subprocess.PIPE) as process:
            if whose == "a zombie's":
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            number = {"nobody's": "2147483646", "unreadable": "?"}.get(whose, str(process.pid))
            lines = [number, str(layout.cluster), "1", "5432", str(layout.socket_directory), "", "1 1", "ready   "]
            (layout.cluster / "postmaster.pid").write_text("\n".join(lines))
            layout.socket_directory.mkdir(mode=0o700)
            socket_path(layout.socket_directory).with_suffix(".5432.lock").write_text("\n".join(lines[:5]))
            with _open(data_dir) as postgres:
                assert ask(postgres.dsn, "SELECT 1") == 1
            assert whose != "a stranger's" or process.poll() is None

    def test_a_kill_during_initdb_leaves_no_half_cluster(self, fresh_dir: Path, tmp_path: Path) -> None:
        """Its initdb lives on and writes where nobody looks; what an earlier one left is cleared."""
        leftover = fresh_dir / f".postgres-{_layout(fresh_dir).major}-dead"
        leftover.mkdir(parents=True)
        with _initdb_that_does_not_end(tmp_path) as programs, UserProcess(fresh_dir, pg_bin_dir=programs) as user:
            until(lambda: any(fresh_dir.glob(".postgres-*/cluster/global")))
            user.kill()
            assert not _layout(fresh_dir).cluster.exists()
            with _open(fresh_dir) as postgres:
                assert ask(postgres.dsn, "SELECT 1") == 1
        assert not leftover.exists()

    def test_a_lost_cluster_is_not_replaced_by_an_empty_one(self, data_dir: Path) -> None:
        """Under a running gateway that would look like a database that lost every tenant."""
        with _open(data_dir) as postgres:
            kill_and_wait(server_processes(_layout(data_dir).cluster))
            with _moved_away(_layout(data_dir).cluster):
                with pytest.raises(EmbeddedPostgresError, match="is gone"):
                    postgres.ensure_running()
                assert not _layout(data_dir).cluster.exists()


class TestRefusals:
    def test_data_of_another_major_version(self, unread_dir: Path) -> None:
        (unread_dir / f"postgres-{_layout(unread_dir).major}").rename(unread_dir / "postgres-17")
        line = _refusal(unread_dir)
        assert "PostgreSQL 17" in line
        assert f"PostgreSQL {_layout(unread_dir).major}" in line
        assert "MODELPORT_PG_BIN_DIR" in line

    def test_a_data_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert "MODELPORT_DATA_DIR" in _refusal(tmp_path / "file" / "data")

    def test_binaries_that_are_not_installed(self, fresh_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
        assert "install modelport[embedded]" in _refusal(fresh_dir)

    def test_a_bin_dir_without_postgres(self, fresh_dir: Path, tmp_path: Path) -> None:
        assert f"no PostgreSQL programs in {tmp_path}" in _refusal(fresh_dir, pg_bin_dir=tmp_path)

    def test_a_socket_directory_open_to_others(self, unread_dir: Path) -> None:
        directory = _layout(unread_dir).socket_directory
        directory.mkdir()
        directory.chmod(0o755)
        assert str(directory) in _refusal(unread_dir)

    def test_a_socket_directory_of_somebody_else(self, unread_dir: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can make a directory for somebody else")
        directory = _layout(unread_dir).socket_directory
        directory.mkdir(mode=0o700)
        os.chown(directory, _NOBODY, _NOBODY)
        assert str(directory) in _refusal(unread_dir)

    def test_a_socket_path_that_is_too_long(self, unread_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        deep = unread_dir / ("d" * 80)
        deep.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        assert "set TMPDIR to a shorter directory" in _refusal(unread_dir)

    def test_a_cluster_that_a_process_out_of_sight_uses(self, unread_dir: Path) -> None:
        """As from another container with the same volume: nothing in /proc, the lock alone tells."""
        layout = _layout(unread_dir)
        layout.make_directories()
        mark = layout.cluster / "postmaster.pid"
        mark.write_text(f"7\n{layout.cluster}\n")
        held = LockFile(layout.server_lock)
        assert held.try_exclusive()
        assert "another container?" in _refusal(unread_dir)
        assert mark.exists()
        held.close()

    def test_a_damaged_cluster_is_named_with_its_log(self, data_dir: Path) -> None:
        with _moved_away(_layout(data_dir).cluster / "global" / "pg_control"):
            line = _refusal(data_dir)
        assert "did not start" in line
        assert "pg_control" in line
        assert str(_layout(data_dir).log) in line

    @pytest.mark.parametrize(
        ("prepare", "said"),
        [
            ("mount -t tmpfs -o size=16m tmpfs", "not enough space"),
            ("mount -t tmpfs -o ro tmpfs", "mount it writable"),
            ("echo 0 > /proc/sys/user/max_user_namespaces; :", "run as a non-root user, or set MODELPORT_DATABASE_URL"),
        ],
    )
    def test_a_machine_that_does_not_let_it_run(self, fresh_dir: Path, prepare: str, said: str) -> None:
        """No space; a read-only volume; root where user namespaces are switched off."""
        fresh_dir.mkdir()
        script = f'{prepare} "$0" || exit 77; exec "$@"'
        done = subprocess.run(
            [*_AS_ROOT_OF_NAMESPACE, script, str(fresh_dir), *user_command(fresh_dir, "stay")],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode in {1, 77}:
            pytest.skip(f"this machine does not allow the preparation: {done.stderr.strip()}")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert said in done.stderr


class TestBackup:
    def test_it_holds_the_database_and_the_keys_and_can_be_restored(self, data_dir: Path, tmp_path: Path) -> None:
        """Taken while another process writes, private, and enough for an empty data directory."""
        (data_dir / "bootstrap.json").write_text("{}")
        with _open(data_dir) as postgres:
            ask(postgres.dsn, *_ONE_VISIT, "SELECT 1")
            made = backup(data_dir, tmp_path / "saved" / "monday", key_files=["bootstrap.json"])
            ask(postgres.dsn_for("postgres"), "CREATE DATABASE restored", "SELECT 1")
            restored = postgres.dsn_for("restored")
            restore = find_binaries(None).client_command("pg_restore", f"--dbname={restored}", f"{made}/modelport.dump")
            run(restore, "restore")
            assert ask(restored, "SELECT count(*) FROM visits") == 1
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in [made, *made.iterdir()]}
        assert modes == {"monday": 0o700, "modelport.dump": 0o600, "bootstrap.json": 0o600}
        assert [entry.name for entry in made.parent.iterdir()] == ["monday"]

    def test_it_starts_a_stopped_server_for_its_time(self, data_dir: Path, tmp_path: Path) -> None:
        assert (backup(data_dir, tmp_path / "saved", key_files=[]) / "modelport.dump").stat().st_size > 0
        assert _is_stopped(data_dir)

    def test_it_writes_over_nothing(self, unread_dir: Path, tmp_path: Path) -> None:
        with pytest.raises(EmbeddedPostgresError, match="exists already"):
            backup(unread_dir, tmp_path, key_files=[])

    @pytest.mark.parametrize("name", ["absent.json", "../secret", ""])
    def test_it_refuses_without_the_keys(self, unread_dir: Path, tmp_path: Path, name: str) -> None:
        (unread_dir.parent / "secret").touch()
        with pytest.raises(EmbeddedPostgresError, match="no key file"):
            backup(unread_dir, tmp_path / "saved", key_files=[name])
        assert not (tmp_path / "saved").exists()

    def test_it_does_not_make_the_database_that_it_should_save(self, fresh_dir: Path, tmp_path: Path) -> None:
        with pytest.raises(EmbeddedPostgresError, match="no embedded database"):
            backup(fresh_dir, tmp_path / "saved", key_files=[])
        assert not fresh_dir.exists()
