"""``docs/reference/metrics.md``, made from the table of families."""

from __future__ import annotations

from backline.observe.families import FAMILIES

_HEAD = """# Metrics

`/metrics` and `/v1/metrics` answer in Prometheus' text format, or as OpenMetrics where `Accept` names it.
As OpenMetrics, the buckets of `backline_request_seconds` carry the last sampled trace as an exemplar.
It goes through no queue, so it answers whatever the load.
[Monitor a server](../how-to/monitor.md) shows what to do with it.

- All of it is counted in the server's one process, from its start; the end of a worker takes nothing back.
- Requests to the probes, `/metrics` and `/stats/` are not counted.
  Paths that no route has are counted as route `other`, methods that HTTP does not know as `_OTHER`.
- Metrics about the model have the label `model`: the `name` in its metadata, or that of its directory.
- Times are seconds, sizes bytes; there are no `_created` series.

| metric | type | labels | what it tells |
| --- | --- | --- | --- |
"""

_TAIL = """
Beside these are prometheus-client's own, about the server's process: `process_*`, `python_gc_*` and `python_info`.

## Upper bounds of the buckets

"""


def render_markdown() -> str:
    """Return the page."""
    rows = []
    bounds: dict[tuple[float, ...], list[str]] = {}
    for family in FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
        rows.append(f"| `{family.name}` | {family.kind} | {labels} | {family.help} |\n")
        if family.bounds:
            bounds.setdefault(family.bounds, []).append(f"`{family.name}`")
    lists = [f"- {', '.join(names)}: {', '.join(f'{bound:g}' for bound in of)}\n" for of, names in bounds.items()]
    return _HEAD + "".join(rows) + _TAIL + "".join(lists)
