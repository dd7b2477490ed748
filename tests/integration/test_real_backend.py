"""OpenAI's own package against a real LLM server that nobody here wrote, through Backline in every way there is."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.environments import environment
from tests.integration.load import request
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
HELLO = "Hello from a tiny model."
CALL = ["get_weather", '{"city": "Paris"}']


class Fronts(NamedTuple):
    """A server that starts the backend, one that is told where it runs, and the backend itself."""

    starts_it: Server
    told_of_it: Server
    backend_url: str
    model: str

    def base_url(self, way: str) -> str:
        return {
            "directly": f"{self.backend_url}/v1",
            "backend command": f"{self.starts_it.url}/v1",
            "backend URL": self.told_of_it.url,
            "direct access": f"{self.told_of_it.url}/directAccess",  # whose backend has the /v1 in its address
        }[way]


@pytest.fixture(scope="module")
def fronts(serve_for_module: ServeFixture, tmp_path_factory: pytest.TempPathFactory) -> Fronts:
    python = environment("transformers")
    model = tmp_path_factory.mktemp("llm") / "tiny"
    subprocess.run([python, HERE / "tiny_llm.py", model], check=True, capture_output=True, timeout=300)
    command = [str(python.parent / "transformers"), "serve", str(model), "--host", "127.0.0.1", "--port", "{port}"]
    starts_it = serve_for_module(
        None, "--backend-command", shlex.join(command), "--backend-ready-path", "/health",
        env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    url = request("GET", f"{starts_it.url}/info/").json()["backend"]["url"]
    told_of_it = serve_for_module(
        None, "--backend", f"{url}/v1", "--backend-kind", "openai",
        "--target-type", "textgeneration", "--python", str(environment("bare")), "--temperature", "0",
    )  # fmt: skip
    return Fronts(starts_it, told_of_it, url, str(model))


def traffic(fronts: Fronts, way: str) -> dict[str, Any]:
    script = str(HERE / "openai_traffic.py")
    command = [str(environment("transformers")), script, fronts.base_url(way), fronts.model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.fixture(scope="module")
def directly(fronts: Fronts) -> dict[str, Any]:
    seen = traffic(fronts, "directly")
    assert seen.pop("association") is False
    return seen


def test_the_backend_itself_does_what_the_comparison_is_about(fronts: Fronts, directly: dict[str, Any]) -> None:
    assert directly["models"] == [fronts.model]
    assert (directly["plain"]["text"], directly["streamed"]["text"]) == (HELLO, HELLO)
    assert directly["streamed"]["pieces"] > 1
    assert directly["streamed"]["usage"]
    assert (directly["tool"]["calls"], directly["tool"]["finish"]) == ([CALL], "tool_calls")
    assert (directly["streamed tool"]["calls"], directly["streamed tool"]["finish"]) == ([CALL], "tool_calls")
    assert directly["response"] == HELLO
    assert directly["no embeddings"] == ["NotFoundError", 404]
    assert directly["async"]["streamed"]["text"] == HELLO


@pytest.mark.parametrize("way", ["backend command", "backend URL", "direct access"])
def test_clients_get_through_the_server_what_they_get_without_it(
    fronts: Fronts, directly: dict[str, Any], way: str
) -> None:
    seen = traffic(fronts, way)
    assert seen.pop("association") is (way != "direct access")
    assert seen == directly


def test_rows_are_answered_by_it(fronts: Fronts) -> None:
    body = b"promptText\nSay hello.\nSay hello.\n"
    answer = request("POST", f"{fronts.told_of_it.url}/predict/", body, headers={"Content-Type": "text/csv"})
    assert answer.json() == {"predictions": [HELLO, HELLO]}
