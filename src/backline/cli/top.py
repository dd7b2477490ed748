"""``backline top``."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backline.errors import BacklineError
from backline.observe.view import Look, view

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_TIMEOUT = 5.0  # seconds for one answer
_MOST_BYTES = 16 << 20


@click.command()
@click.argument("url", default="http://127.0.0.1:8080")
@click.option(
    "--interval", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Seconds between looks."
)
@click.option(
    "--api-key-file", type=click.Path(exists=True, dir_okay=False), metavar="FILE", help="A file with the key to show."
)
@click.option("--once", is_flag=True, help="Print one snapshot, taken over one interval, and leave.")
@click.option("--json", "as_json", is_flag=True, help="Print the snapshot as JSON; implies --once.")
def top(url: str, interval: float, api_key_file: str | None, once: bool, as_json: bool) -> int:
    """Watch the server at URL: requests, queue, workers, times, last errors.

    It needs nothing but HTTP, so it works against any running server, also one on another machine. URL is what the
    server says when it starts, with the path of --url-prefix if it has one. q or Ctrl-C leaves. Where the output is no
    terminal one snapshot is printed, as with --once.
    """
    server = _Server(url, None if api_key_file is None else Path(api_key_file).read_text().strip())
    first = server.look()
    if as_json or once or not sys.stdout.isatty():
        time.sleep(interval)
        shown = view(first, server.look())
        if as_json:
            click.echo(json.dumps(shown, indent=2))
        else:
            from rich.console import Console

            Console(width=None if sys.stdout.isatty() else 110, markup=False).print(_render(shown, server.url))
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        _watch(server, first, interval)
    return 0


class _Server:
    """Asks a server over HTTP. Raises ``BacklineError`` with what to do where it cannot be asked."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise click.BadParameter(f"{url!r} is no address of a server; expected http://HOST:PORT", param_hint="URL")
        self.url = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        # A proxy from the environment is for the world outside, not for a server of one's own.
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def look(self) -> Look:
        page, stats = self._get("/metrics"), self._get("/stats")
        try:
            return Look.of(time.monotonic(), page.decode(), json.loads(stats))
        except (ValueError, KeyError) as exc:
            raise BacklineError(f"{self.url} answers, but not as a Backline server does: {exc}") from exc

    def _get(self, path: str) -> bytes:
        try:
            asked = urllib.request.Request(self.url + path, headers=self._headers)  # noqa: S310  (http or https)
            with self._opener.open(asked, timeout=_TIMEOUT) as answer:
                body: bytes = answer.read(_MOST_BYTES)
                return body
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code == 401:
                raise BacklineError(f"{self.url} asks for a key; name a file with one by --api-key-file") from exc
            raise BacklineError(
                f"{self.url}{path} is answered with {exc.code}; is there a Backline server, and is the path of its "
                "--url-prefix part of the URL?"
            ) from exc
        except (OSError, http.client.HTTPException, ValueError) as exc:
            reason = getattr(exc, "reason", None) or exc
            raise BacklineError(
                f"no server answers at {self.url}: {reason}; start one with backline serve, or name the URL that it "
                "says when it starts"
            ) from exc


def _watch(server: _Server, before: Look, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(markup=False)
    shown: RenderableType = Text("One moment ...", style="dim")
    with _keys() as pressed, Live(shown, console=console, screen=True, auto_refresh=False) as live:
        while not pressed(interval):
            try:
                now = server.look()
            except BacklineError as exc:  # it may come back
                since = time.monotonic() - before.at
                live.update(Text(f"No answer for {since:.0f} s: {exc.message}", style="bold red"), refresh=True)
                continue
            live.update(_render(view(before, now), server.url, quit_hint=True), refresh=True)
            before = now


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """Give a function that waits so many seconds and returns whether q was pressed meanwhile."""
    terminal = _terminal()
    if terminal is None:

        def wait_only(seconds: float) -> bool:
            time.sleep(seconds)
            return False

        yield wait_only
        return
    import termios
    import tty

    settings = termios.tcgetattr(terminal)

    def pressed(seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([terminal], [], [], left)[0] and sys.stdin.read(1) in ("q", "Q", ""):
                return True
        return False

    tty.setcbreak(terminal)
    try:
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, settings)


def _terminal() -> int | None:
    """Return the descriptor of the terminal that keys come from; ``None`` where there is none."""
    try:
        return sys.stdin.fileno() if sys.stdin.isatty() else None
    except (OSError, ValueError, AttributeError):
        return None


def _render(shown: dict[str, Any], url: str, *, quit_hint: bool = False) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    state = shown["state"] or "no model"
    head = Text.assemble(
        ("backline ", "bold"),
        f"{shown['version']}  {url}  ",
        (shown["model"] or "backend only", "bold"),
        f" {shown['target_type']}  ",
        (state, "green" if state in ("ready", "no model") else "bold red"),
        f"  up {_span(shown['uptime_seconds'])}",
        ("  q leaves" if quit_hint else "", "dim"),
    )
    failed = shown["failed_per_second"]
    load = Text.assemble(
        f"{shown['requests_per_second']:,.1f} requests/s  ",
        (f"{failed:,.1f} failed/s  ", "bold red" if failed else ""),
        f"{shown['in_flight']} in flight  {shown['waiting']} waiting",
        f" of {shown['waiting_limit']}" if shown["state"] else "",
        f"  {_bytes(shown['held_bytes'])} held",
        f"  {shown['requests_per_call']:.1f} requests a call" if shown["requests_per_call"] else "",
        f"  {shown['streams_open']} streams" if shown["streams_open"] else "",
    )
    stages = "  ".join(
        f"{stage} {_seconds(seconds)}" for stage, seconds in shown["stage_seconds"].items() if seconds is not None
    )
    parts: list[RenderableType] = [head, load]
    if stages:
        parts.append(Text(f"mean of a request: {stages}"))
    if shown["backend"] is not None:
        ready = "ready" if shown["backend"]["ready"] else "not ready"
        parts.append(Text(f"backend {ready}, {shown['backend']['in_flight']} in flight"))
    return Group(*parts, _workers(shown), *_routes(shown), *_errors(shown))


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        name, _, right = column.partition(">")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    return table


def _workers(shown: dict[str, Any]) -> Table:
    table = _table("worker", "pid>1", "state", "memory>1", "CPU>1", "busy>1", "answered>1")
    server = shown["server"]
    table.add_row("server", "", "", _bytes(server["resident_bytes"]), f"{server['cpu']:.0%}", "", "")
    for worker in shown["workers"]:
        table.add_row(
            str(worker["worker"]),
            str(worker["pid"] or ""),
            worker["state"],
            _bytes(worker["memory_bytes"]),
            f"{worker['cpu']:.0%}",
            f"{worker['busy']:.0%}",
            f"{worker['answered']:,}",
        )
    if shown["restarts"]:
        table.caption = "ended: " + ", ".join(f"{count} {cause}" for cause, count in shown["restarts"].items())
    return table


def _routes(shown: dict[str, Any]) -> list[Table]:
    if not shown["routes"]:
        return []
    table = _table("route", "requests/s>1", "p50>1", "p95>1", "p99>1")
    for route in shown["routes"]:
        quantiles = [_seconds(route[name]) for name in ("p50", "p95", "p99")]
        table.add_row(route["route"], f"{route['requests_per_second']:,.1f}", *quantiles)
    return [table]


def _errors(shown: dict[str, Any]) -> list[Table]:
    if not shown["last_errors"]:
        return []
    table = _table("last errors", "status>1", "code", "route", "request id")
    for error in shown["last_errors"]:
        clock = time.strftime("%H:%M:%S", time.localtime(error["time"]))
        table.add_row(clock, str(error["status"]), error["code"], error["route"], error["request_id"])
    return [table]


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return (
        f"{seconds:.2f} s"
        if seconds >= 1
        else f"{1e3 * seconds:.1f} ms"
        if seconds >= 1e-3
        else f"{1e6 * seconds:.0f} us"
    )


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
