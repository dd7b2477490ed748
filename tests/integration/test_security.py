"""Who may ask, over what, and what the model cannot do: on real servers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import shutil
import ssl
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

import backline_worker
from tests.integration.load import Answer, post, request
from tests.serving import ServeFixture, Server, running_server

pytestmark = pytest.mark.slow

KEY, OTHER = "correct-horse-battery", "staple-0123456789abcdef"
TEXT = {"Content-Type": "text/plain"}
PATIENCE = 30.0  # seconds

MODEL = """
import json
import os
import socket


def load_model(code_dir):
    return code_dir


def network():
    with socket.socket() as sock:
        try:
            sock.connect(("127.0.0.1", 9))
        except OSError as exc:
            return exc.strerror


def write(path):
    try:
        with open(path, "w") as file:
            return file.write("x")
    except OSError as exc:
        return exc.strerror


def score_unstructured(model, data, query, headers=None, **kwargs):
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    return json.dumps({
        "uid": os.getuid(), "home": os.environ.get("HOME"), "no_new_privs": status["NoNewPrivs"].strip(),
        "network": network(), "write": write(os.path.join(model, "planted.txt")), "headers": headers,
        "ours": [name for name in os.environ if name.startswith("BACKLINE_")], "length": len(data),
    })
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("security") / "m"
    folder.mkdir()
    (folder / "custom.py").write_text(MODEL)
    (folder / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    return folder


@pytest.fixture(scope="module")
def keys(folder: Path) -> Path:
    file = folder.parent / "keys"
    file.write_text(f"# who may ask\nteam-a {KEY}\n\n{OTHER}\n")
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def guarded(folder: Path, keys: Path) -> Iterator[Server]:
    flags = ("--cors-origins", "https://app.example.com")
    with running_server(folder.parent / "log", folder, *flags, env={"BACKLINE_API_KEYS_FILE": str(keys)}) as server:
        yield server


def test_nobody_without_a_key_gets_past_the_probes(guarded: Server) -> None:
    for path in ("/livez", "/readyz", "/ping", "/health", "/"):
        assert request("GET", guarded.url + path).status == 200
    for path in ("/predictUnstructured/", "/nowhere", "/info/", "/stats", "/docs", "/openapi.json", "/livez/../info/"):
        for headers in (
            {},
            {"Authorization": "Bearer wrong-wrong-wrong"},
            {"X-API-Key": KEY[:-1]},
            {"Authorization": KEY},
        ):
            refused = request("GET", guarded.url + path, headers=headers)
            assert (refused.status, refused.json()["code"]) == (401, "unauthorized"), (path, headers)
            assert refused.headers["www-authenticate"].startswith("Bearer")
    for path in ("/v1/chat/completions", "/models"):
        assert request("GET", guarded.url + path).json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": OTHER}, {"authorization": f"bearer {OTHER}"}]
)
def test_a_key_opens_the_server_and_goes_no_further(guarded: Server, headers: dict[str, str]) -> None:
    answer = post(f"{guarded.url}/predictUnstructured/", b"abc", headers={**TEXT, **headers, "X-Mine": "1"})
    assert answer.status == 200, answer.body
    seen = {name.lower(): value for name, value in answer.json()["headers"].items()}
    assert seen["x-mine"] == "1"
    assert not {"authorization", "x-api-key"} & set(seen)
    assert answer.json()["ours"] == []
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_browser_of_an_allowed_page_may_ask_and_others_may_not(guarded: Server) -> None:
    def preflight(origin: str) -> Answer:
        asked = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-api-key",
        }
        return request("OPTIONS", f"{guarded.url}/predictUnstructured/", headers=asked)

    allowed = preflight("https://app.example.com")
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, "https://app.example.com")
    assert preflight("https://evil.example.com").status == 400
    refused = post(f"{guarded.url}/predictUnstructured/", b"", headers={"Origin": "https://app.example.com"})
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://app.example.com")


def test_keys_are_read_again_when_their_file_changes(serve: ServeFixture, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n")
    server = serve(folder, "--api-keys-file", str(file))

    def status(key: str) -> int:
        return request("GET", f"{server.url}/info/", headers={"X-API-Key": key}).status

    assert (status(KEY), status(OTHER)) == (200, 401)
    (tmp_path / "new").write_text(f"{OTHER}\n")
    (tmp_path / "new").rename(file)
    wait_until(lambda: (status(KEY), status(OTHER)) == (401, 200))
    file.write_text("short\n")
    wait_until(lambda: "the keys stay as they were" in server.log())
    assert (status(KEY), status(OTHER)) == (401, 200)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "name a readable file"),
        ("", "there is no key in it"),
        ("short", "line 1: a key needs 16"),
        ("a b c", "line 1: expected"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_told_at_once(
    folder: Path, tmp_path: Path, content: str | None, problem: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with (
        pytest.raises(AssertionError, match=f"(?s)--api-keys-file .*{problem}"),
        running_server(tmp_path / "log", folder, "--api-keys-file", str(file)),
    ):
        pass


# --- TLS


def make_certificate(where: Path, name: str, *, issuer: Path | None = None) -> Path:
    """Make a certificate for this machine, signed by itself or by ``issuer``; certificate and key in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificates, and is not installed")
    key, cert, both = (where / f"{name}.{kind}" for kind in ("key", "crt", "pem"))
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    if issuer is not None:
        command += ["-CA", str(issuer), "-CAkey", str(issuer)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(cert.read_text() + key.read_text())
    return both


@contextlib.contextmanager
def https(server: Server, context: ssl.SSLContext) -> Iterator[http.client.HTTPSConnection]:
    parts = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=PATIENCE, context=context)
    try:
        yield connection
    finally:
        connection.close()


def serial_of(server: Server) -> str:
    parts = urllib.parse.urlsplit(server.url)
    return ssl.get_server_certificate((parts.hostname or "", parts.port or 0))


def test_https_with_a_certificate_that_is_replaced_while_it_serves(
    serve: ServeFixture, folder: Path, tmp_path: Path
) -> None:
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    used = tmp_path / "used.pem"
    used.write_text(first.read_text())
    server = serve(folder, "--tls-cert", str(used), ready=None)
    assert server.url.startswith("https://")
    with https(server, ssl.create_default_context(cafile=str(first))) as kept:
        body = b"x" * 3_000_000
        deadline = time.monotonic() + PATIENCE
        while True:
            kept.request("POST", "/predictUnstructured/", body, TEXT)
            response = kept.getresponse()
            content = response.read()
            if response.status == 200:
                break
            assert (response.status, time.monotonic() < deadline) == (503, True)
        assert json.loads(content)["length"] == len(body)
        assert response.headers["strict-transport-security"]
        used.write_text("nonsense")
        wait_until(lambda: "the old certificate stays" in server.log())
        used.write_text(second.read_text())
        wait_until(lambda: serial_of(server) in second.read_text())
        kept.request("GET", "/livez")  # a connection that was there keeps its certificate, and stays
        assert kept.getresponse().status == 200
    with https(server, ssl.create_default_context(cafile=str(second))) as fresh:
        fresh.request("GET", "/livez")
        assert fresh.getresponse().status == 200


def test_only_clients_with_a_certificate_of_the_authority_get_in(
    serve: ServeFixture, folder: Path, tmp_path: Path
) -> None:
    authority = make_certificate(tmp_path, "authority")
    mine, foreign = make_certificate(tmp_path, "mine", issuer=authority), make_certificate(tmp_path, "foreign")
    own = make_certificate(tmp_path, "server")
    server = serve(folder, "--tls-cert", str(own), "--tls-client-ca", str(authority), ready=None)
    for cert, welcome in ((mine, True), (foreign, False), (None, False)):
        context = ssl.create_default_context(cafile=str(own))
        if cert is not None:
            context.load_cert_chain(cert)
        with https(server, context) as connection:
            try:
                connection.request("GET", "/livez")
                got_in = connection.getresponse().status == 200
            except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
                got_in = False
        assert got_in is welcome, cert


# --- the model's process


def test_the_model_gains_no_privileges(guarded: Server) -> None:
    answer = post(f"{guarded.url}/predictUnstructured/", b"", headers={**TEXT, "X-API-Key": KEY}).json()
    assert answer["no_new_privs"] == "1"
    assert answer["network"] == "Connection refused"  # there is a network; nobody listens


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the model as another user")
def test_a_model_that_runs_as_another_user_can_write_nothing_of_the_servers(serve: ServeFixture, folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    package = Path(backline_worker.__file__).parent
    readable = f"open({str(package / 'main.py')!r})"
    if python is None or subprocess.run([python, "-c", readable], user="nobody", check=False).returncode:
        pytest.skip("nobody can run no Python here that could read our package")
    # pytest's folders are closed to others.
    open_folder = Path("/var/tmp", f"backline-test-{os.getpid()}")
    shutil.copytree(folder, open_folder)
    open_folder.chmod(0o755)
    try:
        server = serve(open_folder, "--worker-user", "nobody", "--python", python)
        answer = post(f"{server.url}/predictUnstructured/", b"x" * 1_000_000, headers=TEXT).json()
        assert (answer["uid"], answer["home"]) == (nobody.pw_uid, nobody.pw_dir)
        assert answer["write"] == "Permission denied"
        assert answer["length"] == 1_000_000  # large bodies travel by a file, which that user has to be able to read
    finally:
        shutil.rmtree(open_folder)


def test_a_model_without_a_network_cannot_even_reach_this_machine(serve: ServeFixture, folder: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-Un", "true"], check=False).returncode:
        pytest.skip("this system lets us make no namespaces")
    server = serve(folder, "--no-worker-network")
    answer = post(f"{server.url}/predictUnstructured/", b"abc", headers=TEXT).json()
    assert answer["network"] == "Network is unreachable"


def test_a_user_that_is_not_there_is_told_at_once(folder: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="--worker-user no-such-user: there is no such user"),
        running_server(tmp_path / "log", folder, "--worker-user", "no-such-user"),
    ):
        pass


def wait_until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
