"""The chart of a run: `python -m bench.chart [results.json] > docs/bench.svg`. Drawn by hand, no dependency.

CPU is shown as a multiple of nginx's in the same interleaved rounds, since absolute figures follow the machine's
mood. The peers were measured against nginx in interleaved rounds too, on 2026-11-21 and with another kit (see
README.md); their multiples are fixed here.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.report import MODELPORT, NGINX, NOT_ON
from bench.rows import Rounds
from bench.tools import WORK

_WIDTH = 760
_LEFT, _BAR_WIDTH, _ROW_HEIGHT, _TITLE_HEIGHT, _GAP = 210, 400, 24, 60, 20
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 14px }
  .small { font-size: 11px; fill: #57606a }
  .nginx, .peer { fill: #afb8c1 }
  .modelport { fill: #0969da }
  .limit { stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 3 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .nginx, .peer { fill: #656c76 } .modelport { fill: #4493f8 }
  }
"""
_PEERS_PER_REQUEST = {"vllm-router (Rust, no tenants)": 3.64, "rolter (Rust, keys)": 5.36, "LiteLLM (Python)": 810.0}
_PEERS_PER_CHUNK = {"vllm-router (Rust, no tenants)": 1.19, "rolter (Rust, keys)": 1.22, "LiteLLM (Python)": 57.0}


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    value: float
    kind: str


@dataclass(frozen=True, slots=True)
class Panel:
    """`full` is the longest bar's value; longer ones are cut and say theirs. `limit` is to be stayed below."""

    title: str
    unit: str
    bars: list[Bar]
    full: float
    limit: float | None = None

    @property
    def height(self) -> int:
        return _TITLE_HEIGHT + _ROW_HEIGHT * len(self.bars)


def draw(results: dict[str, Any]) -> str:
    """The SVG of one results file; panels whose figures were not measured are left out."""
    panels = [panel for panel in _panels(results) if any(bar.kind == MODELPORT for bar in panel.bars)]
    height = sum(panel.height + _GAP for panel in panels) + 2 * _GAP
    box = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="Modelport beside nginx on one core">',
        f"<style>{_STYLE}</style>",
    ]
    top = _GAP
    for panel in panels:
        parts += _draw_panel(panel, top)
        top += panel.height + _GAP
    parts += [_text(10, top + 4, _conditions(results), "small"), "</svg>"]
    return "\n".join(parts) + "\n"


def _conditions(results: dict[str, Any]) -> str:
    about, missing = results["about"], [note for note in results["notes"] if note.startswith(NOT_ON)]
    features = f"without {', '.join(note.removeprefix(NOT_ON) for note in missing)}" if missing else "every feature on"
    return f"{about['cpu']}, one core for the gateway; nginx {about['nginx']} checks nothing; Modelport: {features}"


def _panels(results: dict[str, Any]) -> Iterator[Panel]:
    for figure, title, peers, limit in (
        ("requests.cpu_us", "CPU per request, as a multiple of nginx's", _PEERS_PER_REQUEST, 3.55),
        ("live.cpu_us", "CPU per live chunk of a stream, as a multiple of nginx's", _PEERS_PER_CHUNK, 1.19),
    ):
        multiple = _multiple(results, figure)
        found = [Bar("Modelport", multiple, MODELPORT)] if multiple else []
        bars = [Bar("nginx, plain proxy", 1.0, NGINX), *found, *(Bar(n, v, "peer") for n, v in peers.items())]
        yield Panel(title, "times", bars, full=1.25 * max(bar.value for bar in bars[:-1]), limit=limit)
    for figure, title, limit in (
        ("paced.p50_us", "Latency at 100 requests/s, p50 in µs", 190.0),
        ("paced.p99_us", "Latency at 100 requests/s, p99 in µs", 550.0),
        ("live.p99_us", "Delay of a chunk at 5,000 chunks/s, p99 in µs", 450.0),
    ):
        bars = list(_measured(results, figure))
        if bars:
            yield Panel(title, "µs", bars, full=1.25 * max(limit, *(bar.value for bar in bars)), limit=limit)


def _measured(results: dict[str, Any], figure: str) -> Iterator[Bar]:
    for subject, label in ((NGINX, "nginx, plain proxy"), (MODELPORT, "Modelport")):
        value = results["medians"].get(subject, {}).get(figure)
        if value is not None:
            yield Bar(label, value, subject)


def _multiple(results: dict[str, Any], figure: str) -> float | None:
    """The median of the rounds' ratios."""
    ratios = Rounds(results["rounds"]).ratios(MODELPORT, NGINX, figure)
    return statistics.median(ratios) if ratios else None


def _draw_panel(panel: Panel, top: int) -> Iterator[str]:
    yield _text(10, top + 14, panel.title, "title")
    first = top + _TITLE_HEIGHT - _ROW_HEIGHT
    for number, bar in enumerate(panel.bars):
        y = first + number * _ROW_HEIGHT
        width = max(2.0, _BAR_WIDTH * min(bar.value, panel.full) / panel.full)
        cut = " (off the chart)" if bar.value > panel.full else ""
        yield _text(10, y + 15, bar.label)
        yield f'<rect class="{bar.kind}" x="{_LEFT}" y="{y + 2}" width="{width:.1f}" height="17" rx="2"/>'
        yield _text(_LEFT + width + 6, y + 15, f"{_number(bar.value)} {panel.unit}{cut}", "small")
    if panel.limit is not None:
        x = _LEFT + _BAR_WIDTH * panel.limit / panel.full
        bottom = first + len(panel.bars) * _ROW_HEIGHT
        yield f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{first - 3}" y2="{bottom}"/>'
        yield _text(x + 4, first - 4, f"to reach: {_number(panel.limit)}", "small")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else WORK / "results.json"
    sys.stdout.write(draw(json.loads(source.read_text())))
