"""The dashboard and the rules of ``deploy/`` ask for what a server has, and a real Prometheus gets it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backline.observe.families import FAMILIES
from tests.integration.load import post, request
from tests.integration.scrape import OPENMETRICS, scrape
from tests.raw_http import Peer, Request, running_backend
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "backline.rules.yml"
NO_PROMETHEUS = "Prometheus is not installed: the programs prometheus and promtool"

MODEL = """
import os

HERE = os.path.dirname(os.path.abspath(__file__))


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    if data == "die" and not os.path.exists(HERE + "/died"):
        open(HERE + "/died", "w").close()
        os._exit(3)
    if data == "wrong":
        raise ValueError("wrong")
    return data
"""
EVENTS = b"".join(
    b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": %d}}\n\n' % n for n in range(3)
)


def stream(peer: Peer, asked: Request) -> None:
    """Answer as an LLM backend does: events with pauses between them."""
    peer.read_body(asked)
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for event in EVENTS.splitlines(keepends=True)[::2]:
        data = event + b"\n"
        peer.sock.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        time.sleep(0.01)  # the backend's model thinks
    peer.sock.sendall(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def server(serve_for_module: ServeFixture, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on which everything has happened that there are metrics of."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "custom.py").write_text(MODEL)
    (folder / "model-metadata.yaml").write_text("name: echo\ntype: inference\ntargetType: unstructured\n")
    with running_backend(stream) as backend:
        server = serve_for_module(folder, "--workers", "2", "--backend", backend.url, "--backend-ready-path", "/ready")
        use(server)
        yield server


def use(server: Server) -> None:
    text = {"Content-Type": "text/plain"}
    path = f"{server.url}/predictUnstructured"
    for body in (b"hello", b"die", b"wrong", b"hello"):
        post(path, body, headers=text)
    post(path, b"x", headers=text | {"X-Request-Timeout": "never"})
    request("GET", f"{server.url}/nothing")
    assert b"usage" in post(f"{server.url}/directAccess/v1/chat/completions", b"{}").body


def names_in(expression: str) -> set[str]:
    """Return the names of metrics in a query; those of our rules have colons."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|by \([^)]*\)', " ", expression)
    return set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*_[a-zA-Z0-9_:]*", bare)) - {"histogram_quantile"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panel_queries() -> list[tuple[str, str]]:
    board = json.loads((DEPLOY / "grafana" / "backline.json").read_text())
    return [(panel["title"], target["expr"]) for panel in board["panels"] for target in panel.get("targets", ())]


def test_the_dashboard_is_what_its_table_says() -> None:
    written = (DEPLOY / "grafana" / "backline.json").read_text()
    made = subprocess.run(
        [sys.executable, "-c", "import dashboard; print(dashboard.render(), end='')"],
        cwd=ROOT / "scripts", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert written == made.stdout, "run python scripts/dashboard.py"


def test_every_metric_that_is_asked_for_is_there(server: Server) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = scrape(server).names | recorded | {"up"}
    for title, expression in [*panel_queries(), *((str(rule), rule["expr"]) for rule in rules())]:
        asked = names_in(expression)
        assert asked or expression.startswith("up{")
        assert asked <= known, (title, asked - known)


def test_every_family_of_the_table_can_be_seen(server: Server) -> None:
    page = scrape(server).names
    never_here = {"backline_user_metrics_dropped_total", "backline_shadow_requests_total"}  # no shadow is asked
    for family in FAMILIES:
        name = f"{family.name}_count" if family.kind == "histogram" else family.name
        assert name in page or family.name in never_here, family.name


@pytest.mark.skipif(shutil.which("promtool") is None, reason=NO_PROMETHEUS)
def test_promtool_accepts_metrics_and_rules(server: Server) -> None:
    page = request("GET", f"{server.url}/metrics").body
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    assert request("GET", f"{server.url}/metrics", headers={"Accept": OPENMETRICS}).body.endswith(b"# EOF\n")
    for what, name in (("rules", "backline.rules.yml"), ("config", "prometheus.yml")):
        command = ["promtool", "check", what, *(["--lint-fatal"] if what == "rules" else []), name]
        checked = subprocess.run(command, cwd=RULES.parent, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@contextlib.contextmanager
def prometheus(server: Server, folder: Path) -> Iterator[Callable[[str], list[Any]]]:
    """Run a Prometheus with our rules that scrapes the server; give a function that asks it."""
    shutil.copy(RULES, folder)
    scraped = urllib.parse.urlsplit(server.url).netloc
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\nrule_files: [backline.rules.yml]\n"
        f"scrape_configs: [{{job_name: backline, static_configs: [{{targets: ['{scraped}']}}]}}]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

    def ask(query: str) -> list[Any]:
        answer = request("GET", f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        content = answer.json()
        assert content["status"] == "success", (query, content)
        found: list[Any] = content["data"]["result"]
        return found

    command = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address={address}", "--log.level=warn"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*command, f"--storage.tsdb.path={folder}/data"], cwd=folder, stdout=log, stderr=log
        ) as process,
    ):
        try:
            wait_until(lambda: is_up(address), "Prometheus listens")
            yield ask
        finally:
            process.kill()


def is_up(address: str) -> bool:
    try:
        return request("GET", f"http://{address}/-/ready").status == 200
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.1)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason=NO_PROMETHEUS)
def test_a_real_prometheus_gets_data_for_every_query(server: Server, tmp_path: Path) -> None:
    queries = [
        (title, re.sub(r"\$__rate_interval|\$__range", "1m", query).replace("$job", ".*").replace("$instance", ".*"))
        for title, query in panel_queries()
    ]
    queries += [(rule["record"], rule["record"]) for rule in rules() if "record" in rule]
    with prometheus(server, tmp_path) as ask:

        def missing() -> list[str]:
            return [title for title, query in queries if not ask(query)]

        wait_until(lambda: bool(ask("up == 1")), "the server is scraped")
        deadline = time.monotonic() + 40
        while left := missing():
            assert time.monotonic() < deadline, left
            use(server)
            (Path(server.command[4]) / "died").unlink(missing_ok=True)
        seen = sum(float(result["value"][1]) for result in ask('backline_requests_total{status="200"}'))
        assert seen > 0
