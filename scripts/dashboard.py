"""Writes ``deploy/grafana/backline.json``, the Grafana dashboard, from the table below.

``scripts/dashboard.py`` writes it; a test holds the file against this table, and every query against a live server.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[1] / "deploy" / "grafana" / "backline.json"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT = 8, 7  # of a panel, in Grafana's grid of 24 columns
_QUEUE = 'stage="queue"'
_OF = 'job=~"$job",instance=~"$instance"'


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel: each query with its legend; ``OF`` in a query stands for the chosen servers."""

    title: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"
    stacked: bool = False


def rate(metric: str, by: str = "", more: str = "") -> str:
    """Return the query for the growth a second of a counter, summed ``by`` labels."""
    labels = f"OF,{more}" if more else "OF"
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantiles(metric: str, by: str = "") -> dict[str, str]:
    """Return the queries for the quantiles of a histogram."""
    labels, legend = (f"le, {by}", f" {{{{{by}}}}}") if by else ("le", "")
    return {
        f"p{100 * q:.0f}{legend}": f"histogram_quantile({q}, {rate(f'{metric}_bucket', labels)})"
        for q in (0.5, 0.95, 0.99)
    }


def mean(metric: str, by: str = "") -> str:
    """Return the query for the mean of a histogram's observations."""
    return f"{rate(f'{metric}_sum', by)} / {rate(f'{metric}_count', by)}"


ROWS: dict[str, list[Panel]] = {
    "Now": [
        Panel("Requests a second", "reqps", {"requests": rate("backline_requests_total")}, "stat"),
        Panel(
            "Failed",
            "percentunit",
            {
                "5xx": f'(sum(rate(backline_requests_total{{OF,status=~"5.."}}[$__rate_interval])) or vector(0)) / '
                f"{rate('backline_requests_total')}"
            },
            "stat",
        ),
        Panel(
            "Workers ready",
            "none",
            {
                "ready": 'sum(backline_workers{OF,state=~"ready|busy"})',
                "configured": "sum(backline_workers_configured{OF})",
            },
            "stat",
        ),
    ],
    "Requests": [
        Panel("Requests by route", "reqps", {"{{route}}": rate("backline_requests_total", "route")}, stacked=True),
        Panel("Requests by status", "reqps", {"{{status}}": rate("backline_requests_total", "status")}, stacked=True),
        Panel("From arrival to answer", "s", quantiles("backline_request_seconds")),
        Panel("Where the time goes, mean", "s", {"{{stage}}": mean("backline_stage_seconds", "stage")}, stacked=True),
        Panel("Errors by code", "reqps", {"{{code}}": rate("backline_errors_total", "code")}, stacked=True),
        Panel(
            "Refused, late, left, tried again",
            "reqps",
            {
                "refused: {{reason}}": rate("backline_rejections_total", "reason"),
                "late in {{where}}": rate("backline_deadlines_exceeded_total", "where"),
                "left in {{where}}": rate("backline_cancellations_total", "where"),
                "tried again": rate("backline_retries_total"),
            },
        ),
    ],
    "Load": [
        Panel(
            "In flight and waiting",
            "none",
            {"in flight": "sum(backline_requests_in_flight{OF})", "waiting": "sum(backline_queue_requests{OF})"},
        ),
        Panel(
            "Queue, of its limit",
            "percentunit",
            {
                "requests": "max(backline_queue_requests{OF} / backline_queue_limit_requests{OF})",
                "bytes": "max(backline_held_bytes{OF} / backline_held_limit_bytes{OF})",
            },
        ),
        Panel(
            "Wait in the queue",
            "s",
            {
                f"p{100 * q:.0f}": f"histogram_quantile({q}, {rate('backline_stage_seconds_bucket', 'le', _QUEUE)})"
                for q in (0.5, 0.99)
            },
        ),
        Panel(
            "Workers busy",
            "percentunit",
            {
                "worker {{worker}}": rate("backline_worker_busy_seconds_total", "worker"),
            },
        ),
        Panel("Requests in one call of the model, mean", "none", {"requests": mean("backline_batch_requests")}),
        Panel("Rows in one call of the model, mean", "none", {"rows": mean("backline_batch_rows")}),
    ],
    "Workers": [
        Panel("Workers by state", "none", {"{{state}}": "sum by (state) (backline_workers{OF})"}, stacked=True),
        Panel(
            "Ended, by cause",
            "none",
            {"{{cause}}": "sum by (cause) (increase(backline_worker_restarts_total{OF}[$__rate_interval]))"},
        ),
        Panel(
            "Start of a worker, mean",
            "s",
            {
                "to readiness": mean("backline_worker_start_seconds").replace("$__rate_interval", "$__range"),
                "of this loading": mean("backline_worker_load_seconds").replace("$__rate_interval", "$__range"),
            },
        ),
        Panel(
            "Memory of workers (PSS)",
            "bytes",
            {"worker {{worker}}": "sum by (worker) (backline_worker_proportional_memory_bytes{OF})"},
            stacked=True,
        ),
        Panel(
            "Processor time of workers",
            "percentunit",
            {"worker {{worker}}": rate("backline_worker_cpu_seconds_total", "worker")},
            stacked=True,
        ),
        Panel("The server's own process", "percentunit", {"processor": rate("process_cpu_seconds_total")}),
    ],
    "Backend and streams": [
        Panel(
            "Backend",
            "none",
            {
                "ready": "min(backline_backend_ready{OF})",
                "in flight": "sum(backline_backend_in_flight{OF})",
            },
        ),
        Panel("Streams open", "none", {"{{route}}": "sum by (route) (backline_streams_open{OF})"}),
        Panel("To the first chunk", "s", quantiles("backline_stream_first_chunk_seconds")),
        Panel("Between chunks", "s", quantiles("backline_stream_chunk_gap_seconds")),
        Panel("Tokens a second", "none", {"{{direction}}": rate("backline_tokens_total", "direction")}),
        Panel("Memory of the server's process", "bytes", {"resident": "sum(process_resident_memory_bytes{OF})"}),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row, members in ROWS.items():
        panels.append({"type": "row", "title": row, "collapsed": False, "panels": [], "gridPos": _place(0, top, 24, 1)})
        top += 1
        for place, panel in enumerate(members):
            position = _place(place % 3 * _WIDTH, top + place // 3 * _HEIGHT, _WIDTH, _HEIGHT)
            panels.append(_panel(panel, position))
        top += -(-len(members) // 3) * _HEIGHT
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "title": "Backline",
        "uid": "backline",
        "tags": ["backline"],
        "description": "Requests, load, workers and backend of Backline servers.",
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source_variable(), _variable("job"), _variable("instance", 'job=~"$job"')]},
        "panels": panels,
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel, position: dict[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"fillOpacity": 20 if panel.stacked else 0, "showPoints": "never"}
        custom["stacking"] = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}} if panel.kind == "timeseries" else {},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": query.replace("OF", _OF),
                "legendFormat": legend,
                "exemplar": panel.title == "From arrival to answer",
            }
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _source_variable() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _variable(label: str, of: str = "") -> dict[str, Any]:
    query = f"label_values(backline_info{f'{{{of}}}' if of else ''}, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": label},
        "definition": query,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }


def render() -> str:
    """Return the file's text."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(render())
