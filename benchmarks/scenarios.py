"""What is measured: each scenario by itself, and the groups in which they are asked for."""

from __future__ import annotations

import dataclasses
from typing import Literal

from benchmarks.contenders import BARE_LOOP, CONTENDERS, Model

Kind = Literal["start", "load", "large", "checked", "broken"]

LARGE_ROWS = 100_000
# The best of those that batch, and the plainest: more lines would hide each other.
GROWTH_CONTENDERS = ("backline", "LitServe, batching", "MLServer, batching", "plain FastAPI, 2 processes")
GROWTH_CLIENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
LEVERS = ("backline", "backline, 2 workers", "backline, batch off")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One measurement of one contender.

    ``kind``: ``start`` (time to the first answer, and memory when idle), ``load`` (wrk), ``large`` (one request),
    ``checked`` (our client, every answer compared), ``broken`` (our client, one connection apart with broken rows).
    ``contenders``: those that take part; ``None`` for every server.
    """

    group: str
    title: str
    kind: Kind = "load"
    model: Model = "pipeline"
    clients: int = 1
    rows: int = 1
    contenders: tuple[str, ...] | None = None
    one_row_csv: bool = False  # of our client: only the requests that can all share one call

    def is_for(self, contender: str) -> bool:
        """Whether a contender takes part."""
        return contender in CONTENDERS if self.contenders is None else contender in self.contenders


_OURS_ON_HOOKS = ("backline", "backline, batch on")
_CHECKED: tuple[tuple[str, str, Model, bool], ...] = (
    ("csv", "pipeline, CSV of 1 row", "pipeline", True),
    ("mixed", "pipeline, CSV and JSON of 1 to 29 rows", "pipeline", False),
    ("forest", "random forest, CSV and JSON of 1 to 29 rows", "forest", False),
)

SCENARIOS: dict[str, Scenario] = {
    # In the order in which they are measured on a server that has just been started.
    "start": Scenario(group="table", title="start to first answer, and memory when idle", kind="start"),
    "pipeline-1": Scenario(group="table", title="pipeline, 1 row, 1 client", contenders=(BARE_LOOP, *CONTENDERS)),
    "pipeline-8": Scenario(group="table", title="pipeline, 1 row, 8 clients", clients=8),
    "pipeline-32": Scenario(group="table", title="pipeline, 1 row, 32 clients", clients=32),
    "pipeline-128": Scenario(group="table", title="pipeline, 1 row, 128 clients", clients=128),
    "rows-100": Scenario(group="table", title="pipeline, 100 rows, 8 clients", clients=8, rows=100),
    "large": Scenario(group="table", title="one request of 100,000 rows", kind="large", rows=LARGE_ROWS),
    "forest": Scenario(group="table", title="random forest, 1 row, 8 clients", model="forest", clients=8),
    "noop": Scenario(
        group="table",
        title="no-op hook, 1 row, 32 clients",
        model="noop",
        clients=32,
        contenders=(*_OURS_ON_HOOKS, *(name for name, contender in CONTENDERS.items() if not contender.ours)),
    ),
    **{
        f"checked-{name}-{clients}": Scenario(
            group="checked",
            title=f"{title}, {clients} clients",
            kind="checked",
            model=model,
            clients=clients,
            contenders=("backline", "backline, 2 workers"),
            one_row_csv=one_row_csv,
        )
        for name, title, model, one_row_csv in _CHECKED
        for clients in (128, 512)
    },
    **{
        f"growth-{clients}": Scenario(
            group="growth",
            title=f"pipeline, 1 row, {clients} clients",
            clients=clients,
            contenders=GROWTH_CONTENDERS,
        )
        for clients in GROWTH_CLIENTS
    },
    "broken": Scenario(
        group="broken",
        title="31 clients with good rows, beside one with good or with broken rows",
        kind="broken",
        clients=31,
        contenders=("backline",),
        one_row_csv=True,
    ),
    "broken-kinds": Scenario(
        group="broken-kinds",
        title="31 clients with good rows, beside one with broken rows of one kind",
        kind="broken",
        clients=31,
        contenders=("backline",),
        one_row_csv=True,
    ),
}

_ASKED_FOR = ("broken-kinds",)  # groups that help to find a cause, and prove nothing that another one does not

GROUPS = tuple(dict.fromkeys(scenario.group for scenario in SCENARIOS.values()))


def select(words: list[str]) -> dict[str, Scenario]:
    """Return the scenarios of these names and groups; the usual ones where there is no word.

    Raises ``KeyError`` for a word that means none.
    """
    chosen: dict[str, Scenario] = {}
    for word in words or [group for group in GROUPS if group not in _ASKED_FOR]:
        found = {name: scenario for name, scenario in SCENARIOS.items() if word in (name, scenario.group)}
        if not found:
            raise KeyError(word)
        chosen |= found
    return {name: scenario for name, scenario in SCENARIOS.items() if name in chosen}
