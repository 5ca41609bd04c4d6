"""Make `.venv` from the hashed locks: `python3 scripts/prepare.py run|test`. Standard library only.

`run` is what the product needs, `test` is that and the tools; an environment made for tests runs the
product too. What it was made from is kept in a stamp inside it, so that the second call returns in
milliseconds and any change of a lock installs what changed. Half-made, moved or outdated environments
are made anew. No package index is named here or in the locks: pip asks the one it is configured for.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "modelport-stamp.json"
LOCKS = {
    "run": ("requirements.lock", "requirements-demo.lock"),
    "test": ("requirements-dev.lock", "requirements-demo.lock"),
}
ALSO_GOOD_FOR = {"run": ("run",), "test": ("test", "run")}
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(?!.*== '(?:win32|emscripten)')", re.MULTILINE)
STEP = re.compile(r"^(?:Collecting|Processing|Requirement already satisfied:) (?:\S*/)?([A-Za-z0-9._-]+?)(?:==|-\d)")
QUIET = ("--disable-pip-version-check", "--no-input", "--progress-bar=off", "--root-user-action=ignore")
LAST_WORDS = 20


def main() -> None:
    purpose = sys.argv[1] if len(sys.argv) > 1 else "run"
    if purpose not in LOCKS:
        sys.exit("usage: prepare.py run|test")
    try:
        with only_one():
            prepare(purpose)
    except KeyboardInterrupt:
        sys.exit(130)


def prepare(purpose: str) -> None:
    wanted = digest(purpose)
    stamp = read_stamp()
    moved = stamp.get("root", str(ROOT)) != str(ROOT)  # its scripts name the interpreter where it was
    if stamp.get(purpose) == wanted and PYTHON.exists() and not moved:
        return
    if moved or not usable():
        make_venv()
    install_locks(LOCKS[purpose])
    install_modelport()
    done = {name: digest(name) for name in ALSO_GOOD_FOR[purpose]}
    STAMP.write_text(json.dumps({**read_stamp(), **done, "root": str(ROOT)}))


@contextmanager
def only_one() -> Iterator[None]:
    """Two `make` at once: the second waits, then finds the work done."""
    directory = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def digest(purpose: str) -> str:
    """Of all that the environment is made from; the settings of our tools are not part of it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = [json.dumps([project["build-system"], project["project"]], sort_keys=True).encode()]
    parts += [(ROOT / name).read_bytes() for name in LOCKS[purpose]]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def read_stamp() -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return found


def usable() -> bool:
    """Whether there is an environment with a Python that still works, is new enough and has pip."""
    question = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([PYTHON, "-c", question], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def make_venv() -> None:
    try:
        import ensurepip  # noqa: F401 - Debian ships venv without it
        import venv
    except ImportError:
        sys.exit(f"{sys.executable} has no venv: install it (Debian, Ubuntu: apt-get install python3-venv)")
    say(f"making .venv with Python {sys.version_info[0]}.{sys.version_info[1]} …")
    venv.create(VENV, clear=True, with_pip=True, symlinks=True)


def install_locks(names: tuple[str, ...]) -> None:
    packages = {package for name in names for package in PINNED.findall((ROOT / name).read_text())}
    say(f"installing {len(packages)} packages from {' and '.join(names)} (once) …")
    started = monotonic()
    arguments = [argument for name in names for argument in ("-r", name)]
    # Not compiled: most modules are never imported, and Python compiles the others when they are.
    pip("install", "--no-deps", "--require-hashes", "--no-compile", *arguments, total=len(packages))
    say(f"installed in {monotonic() - started:.0f} s")


def install_modelport() -> None:
    pip("install", "--no-deps", "--no-build-isolation", "--editable", ".")


def pip(verb: str, *arguments: str, total: int = 0) -> None:
    """Run pip, count its packages for whoever waits, and show what it said only when it fails."""
    command = [str(PYTHON), "-m", "pip", verb, *QUIET, *arguments]
    said: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        seen: set[str] = set()
        for line in process.stdout or ():
            said.append(line)
            step = STEP.match(line.strip())
            if step and step[1] not in seen:
                seen.add(step[1])
                show_progress(len(seen), total, step[1].replace("_", "-"))
            elif total and line.startswith("Installing collected"):
                show_progress(len(seen), total, "unpacking …")
        clear_progress()
    if process.returncode:
        sys.stderr.writelines(said[-LAST_WORDS:])
        sys.exit("pip could not install the packages: its last words are above")


def show_progress(done: int, total: int, package: str) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\033[K  {done} of {total}  {package}")
        sys.stdout.flush()
    elif total and done % 20 == 0:
        say(f"  {done} of {total}")


def clear_progress() -> None:
    if sys.stdout.isatty():
        sys.stdout.write("\r\033[K")
        sys.stdout.flush()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
