"""`make bench`: Modelport against nginx on this machine, every feature on.

One core is the gateway's; load generator, mock upstream and Postgres share the other. Speed is measured in
interleaved rounds, since a machine's speed drifts; what concerns Modelport alone is measured once. Every run is
bounded. Exit 1 when any answer was wrong, 2 when the bench could not run. README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench import endurance, machine, nginx, report
from bench.certificate import Certificate, make_certificate
from bench.nginx import Nginx, running_nginx
from bench.product import Product, running_product, wait_callable
from bench.report import MODELPORT, NGINX, NOT_ON
from bench.rows import ROWS, TLS_ROW, Figures, Rounds, Row, play
from bench.subjects import Subject, WrongAnswer
from bench.tools import WORK, Kit, KitNotBuilt, LoadFailed, Mock, build, running_mock

_FILES_BESIDE_STREAMS = 1_000
_BUSY_LOAD_AVERAGE = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run, and how long: `--quick` is for seeing that all of it works, not for figures to quote."""

    names: frozenset[str]
    rounds: int
    scale: float
    leavers: int
    few_streams: int
    many_streams: int
    outage: int = 5_000

    def __contains__(self, name: str) -> bool:
        return name in self.names


@dataclass(slots=True)
class Bench:
    """The parts that every step needs, and what has been found so far."""

    plan: Plan
    kit: Kit
    mock: Mock
    certificate: Certificate
    directory: Path
    rounds: Rounds
    notes: list[str]

    def alone(self, name: str, product: Product) -> None:
        """One measurement of Modelport alone; a wrong result is kept and the others still run."""
        if name not in self.plan:
            return
        print(f"  {name:10} {MODELPORT:10}", end=" ", file=sys.stderr, flush=True)
        try:
            figures, notes = _ALONE[name](self, product)
        except (endurance.Fault, LoadFailed) as fault:
            self.rounds.faults.append(f"{name}: {fault}")
            print("FAULT", fault, file=sys.stderr, flush=True)
            return
        self.rounds.add(MODELPORT, figures)
        self.notes += [f"{name}: {note}" for note in notes]
        print("  ".join(f"{key.partition('.')[2]} {value:.2f}" for key, value in figures.items()), file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    plan = _plan(arguments)
    try:
        machine.require_two_cpus()
        bench = _measure(plan, build())
    except (machine.MachineTooSmall, KitNotBuilt, WrongAnswer, AssertionError) as refused:
        print(f"bench: {refused}", file=sys.stderr)
        return 2
    return 1 if bench.rounds.faults else 0


def _measure(plan: Plan, kit: Kit) -> Bench:
    about = {**machine.description(), **_versions()}
    files = machine.raise_file_limit()
    with tempfile.TemporaryDirectory(prefix="modelport-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        certificate = make_certificate(directory)
        mock = stack.enter_context(running_mock(kit, certificate))
        bench = Bench(_fitting(plan, files), kit, mock, certificate, directory, Rounds(), [])
        if float(about["load_average_at_start"]) > _BUSY_LOAD_AVERAGE:
            bench.notes.append("the machine was busy when it began: these figures are not for quoting")
        if not kit.has_tls:
            bench.notes.append("tls: left out, OpenSSL's headers are not installed (apt-get install libssl-dev)")
        _measure_running(bench, files)
        _measure_fresh(bench)
    report.derive(bench.rounds)
    _publish(bench, about)
    return bench


def _measure_running(bench: Bench, files: int) -> None:
    """Speed in rounds, then what concerns one gateway that has been under load."""
    if not bench.plan.names - {"streams"}:
        return
    with ExitStack() as stack:
        product = _start(bench, stack, "modelport")
        if bench.plan.names - set(_ALONE):
            _play_rounds(bench, product, _start_nginx(bench, stack, files))
        for name in ("sql", "leavers", "outage"):
            bench.alone(name, product)


def _measure_fresh(bench: Bench) -> None:
    if "streams" not in bench.plan:
        return
    with ExitStack() as stack:
        product = _start(bench, stack, "fresh")
        bench.alone("streams", product)


def _start(bench: Bench, stack: ExitStack, name: str) -> Product:
    product = stack.enter_context(running_product(bench.directory / name, bench.mock, bench.certificate))
    for subject in (product.plain, product.tls):
        if subject is not None:
            _prepare(subject)
    product.outage.write_bodies()
    wait_callable(product.outage)
    missing = [f"{NOT_ON}{what}" for what in product.missing]
    bench.notes += [note for note in missing if note not in bench.notes]
    return product


def _start_nginx(bench: Bench, stack: ExitStack, files: int) -> Nginx | None:
    if nginx.version() is None:
        bench.notes.append(f"nginx is not installed, so there is nothing to compare with: {nginx.HOW_TO_INSTALL}")
        return None
    directory = bench.directory / "nginx"
    return stack.enter_context(running_nginx(directory, bench.mock, bench.certificate, files=files))


def _prepare(subject: Subject) -> None:
    subject.write_bodies()
    wait_callable(subject)
    subject.keep_answer()


def _play_rounds(bench: Bench, product: Product, other: Nginx | None) -> None:
    plain: list[tuple[str, Subject]] = [(MODELPORT, product.plain)]
    tls = [(MODELPORT, product.tls)] if product.tls else []
    if other is not None:
        plain.insert(0, (NGINX, other.plain))
        tls = [(NGINX, other.tls), *tls] if other.tls else tls
        for _, subject in (plain[0], *tls[:1]):
            _prepare(subject)
    pairs: list[tuple[Row, list[tuple[str, Subject]]]] = [(row, plain) for row in ROWS]
    if tls:
        pairs.append((TLS_ROW, tls))
    for number in range(bench.plan.rounds):
        print(f"round {number + 1} of {bench.plan.rounds}", file=sys.stderr, flush=True)
        for row, subjects in pairs:
            if row.name in bench.plan:
                order = subjects if number % 2 == 0 else subjects[::-1]
                play(bench.kit, row, order, bench.rounds, scale=bench.plan.scale)


def _publish(bench: Bench, about: dict[str, str]) -> None:
    found = report.as_json(bench.rounds, about, bench.notes)
    text = json.dumps(found, indent=1)
    (WORK / f"results-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json").write_text(text)
    (WORK / "results.json").write_text(text)
    print(report.table(bench.rounds))
    print("\n" + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in about.items()))
    for note in bench.notes:
        print(f"note: {note}")
    for fault in bench.rounds.faults:
        print(f"WRONG: {fault}")


def _fitting(plan: Plan, files: int) -> Plan:
    """No more streams than the gateway may have files for: two each."""
    most = (files - _FILES_BESIDE_STREAMS) // 2
    if plan.many_streams <= most:
        return plan
    print(f"bench: only {files} open files are allowed, so {most} streams", file=sys.stderr)
    return replace(plan, few_streams=min(plan.few_streams, most // 2), many_streams=most)


def _versions() -> dict[str, str]:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "nginx": nginx.version() or "none",
        "uvicorn": importlib.metadata.version("uvicorn"),
        "modelport": commit.stdout.strip() or importlib.metadata.version("modelport"),
    }


def _plan(arguments: Sequence[str] | None) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, help="interleaved rounds (5; 2 with --quick)")
    parser.add_argument("--only", default=",".join(NAMES), help=f"comma-separated, of {', '.join(NAMES)}")
    parser.add_argument(
        "--quick", action="store_true", help="about two minutes: sees that all works, no figures to quote"
    )
    given = parser.parse_args(arguments)
    names = frozenset(given.only.split(","))
    if unknown := names - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if given.quick:
        return Plan(names, given.rounds or 2, 0.4, 4_000, 500, 2_000)
    return Plan(names, given.rounds or 5, 1.0, 50_000, 1_000, 9_000)


def _streams(bench: Bench, product: Product) -> tuple[Figures, list[str]]:
    plan = bench.plan
    found = endurance.streams(
        bench.kit, product, few=plan.few_streams, many=plan.many_streams, seconds=max(2, 6 * plan.scale)
    )
    return found, []


def _statements(bench: Bench, product: Product) -> tuple[Figures, list[str]]:
    return endurance.statements(bench.kit, product, seconds=4 * bench.plan.scale)


def _leavers(bench: Bench, product: Product) -> tuple[Figures, list[str]]:
    return endurance.leavers(bench.kit, product, bench.mock, requests=bench.plan.leavers)


def _outage(bench: Bench, product: Product) -> tuple[Figures, list[str]]:
    return endurance.outage(bench.kit, product, bench.mock, requests=bench.plan.outage), []


_ALONE: dict[str, Callable[[Bench, Product], tuple[Figures, list[str]]]] = {
    "sql": _statements,
    "leavers": _leavers,
    "outage": _outage,
    "streams": _streams,
}
NAMES = (*(row.name for row in ROWS), TLS_ROW.name, *_ALONE)


if __name__ == "__main__":
    sys.exit(main())
