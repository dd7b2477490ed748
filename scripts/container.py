"""Takes the steps of a Containerfile in plain directories and runs what comes of them, where there is no engine.

Called by ``scripts/check-container``, as root. It knows the part of the language that ``deploy/container`` uses, and
refuses the rest; every RUN is run, every COPY copied. Debian's own packages in a directory stand for a base image
(``DEBIAN``): ``python:3.13-slim`` is the slim image of Debian 13 with a Python 3.13, and Debian 13's own Python is
3.13, so the one difference is whose build of it runs, and that it lies in /usr and not in /usr/local.

A container is namespaces of its own for mounts, processes and network, a root that cannot be written to, a small /dev,
a /tmp in memory, and a user without privileges.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parents[1]
DEBIAN = {"python:3.13-slim": "trixie"}
PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")
# As the slim images leave it out.
UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")
READY_SECONDS, STOP_SECONDS = 120, 30
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The first program in the container's namespaces: makes them what a container has, and becomes the container's own.
ENTER = r"""
import ctypes, fcntl, json, os, socket, struct, subprocess, sys
job = json.loads(sys.argv[1])
root = job["root"]
with socket.socket() as any_socket:  # loopback is down in a new network
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
def mount(*words):
    subprocess.run(["mount", *words], check=True)
mount("--bind", root, root)
mount("-t", "proc", "proc", root + "/proc")
mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", root + "/dev")
for name in ("null", "zero", "full", "random", "urandom"):
    open(root + "/dev/" + name, "w").close()
    mount("--bind", "/dev/" + name, root + "/dev/" + name)
os.mkdir(root + "/dev/shm")
mount("-t", "tmpfs", "-o", "mode=1777,size=64m,nosuid,nodev", "tmpfs", root + "/dev/shm")
mount("-t", "tmpfs", "-o", "mode=1777,size=64m,nosuid,nodev", "tmpfs", root + "/tmp")
for inside, outside in job["volumes"].items():
    mount("--bind", outside, root + inside)
    mount("-o", "remount,ro,bind", root + inside)
mount("-o", "remount,ro,bind", root)
os.chroot(root)
os.chdir(job["workdir"])
os.setgroups([])
os.setgid(job["gid"])
os.setuid(job["uid"])
if ctypes.CDLL(None).prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
    sys.exit("no new privileges: cannot be set")
os.execve(job["command"][0], job["command"], job["environment"])
"""

ASK = r"""
import http.client, pathlib, sys
path, content_type, body = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
connection.request("POST" if body else "GET", path, pathlib.Path(body).read_bytes() if body else None,
                   {"Content-Type": content_type} if content_type else {})
answer = connection.getresponse()
print(answer.status, answer.read(300).decode())
"""


class Failed(Exception):
    """A step failed, or what came of it is not as it has to be."""


@dataclasses.dataclass(kw_only=True)
class Image:
    """A root and what its Containerfile says of how to run it."""

    root: Path
    environment: dict[str, str] = dataclasses.field(default_factory=lambda: {"PATH": PATH})
    workdir: str = "/"
    user: str = "0"
    entrypoint: list[str] = dataclasses.field(default_factory=list)
    command: list[str] = dataclasses.field(default_factory=list)
    health: list[str] = dataclasses.field(default_factory=list)
    stop_signal: str = "SIGTERM"
    exposed: list[str] = dataclasses.field(default_factory=list)


def say(text: str) -> None:
    print(f"== {text}", file=sys.stderr, flush=True)


def run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise Failed(f"{what}: exit code {done.returncode}\n{done.stdout.decode(errors='replace')[-4000:]}")


def instructions(file: Path) -> list[tuple[str, str]]:
    """Return the steps of a Containerfile, in order, without comments."""
    parser = DockerfileParser(fileobj=io.BytesIO(file.read_bytes()))
    return [(step["instruction"], step["value"]) for step in parser.structure if step["instruction"] != "COMMENT"]


class Ignored:
    """What ``.dockerignore`` keeps out of a build: the last pattern for a path or a folder above it decides."""

    def __init__(self, file: Path) -> None:
        lines = file.read_text().splitlines() if file.exists() else []
        patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        self._rules = [(_regex(pattern.lstrip("!").strip("/")), not pattern.startswith("!")) for pattern in patterns]

    def __call__(self, path: str) -> bool:
        above = [path, *map(str, PurePosixPath(path).parents)][:-1]
        verdict = False
        for regex, ignored in self._rules:
            if any(regex.fullmatch(part) for part in above):
                verdict = ignored
        return verdict


def _regex(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]*\])", pattern)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(known.get(part, part if part.startswith("[") else re.escape(part)) for part in parts))


def copy_in(context: Path, ignored: Ignored, sources: Sequence[str], target: Path, *, into: bool) -> None:
    """Copy files of the build context; a folder's content goes into ``target``."""
    for source in sources:
        origin = context / source
        files = [origin] if origin.is_file() else [path for path in origin.rglob("*") if not path.is_dir()]
        taken = [path for path in files if not ignored(path.relative_to(context).as_posix())]
        if not taken:
            raise Failed(f"COPY {source}: not in the build context, or kept out of it by .dockerignore")
        for path in taken:
            relative = path.relative_to(origin) if origin.is_dir() else Path(path.name if into else "")
            destination = target / relative
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, destination, follow_symlinks=False)
            os.chown(destination, 0, 0, follow_symlinks=False)


class Builder:
    """Takes the steps of Containerfiles; ``images`` are those that FROM may name."""

    def __init__(self, work: Path, cache: Path) -> None:
        self._work = work
        self._cache = cache
        self.images: dict[str, Image] = {}

    def build(self, file: Path, context: Path) -> Image:
        """Return the image of the last stage."""
        ignored = Ignored(context / ".dockerignore")
        stages: dict[str, Image] = {}
        image: Image | None = None
        for instruction, value in instructions(file):
            say(f"{instruction} {value}")
            if instruction == "FROM":
                base, _, name = re.sub(r"\s+", " ", value).partition(" AS ")
                image = self._from(stages.get(base) or self.images.get(base), base)
                stages[name or str(len(stages))] = image
            elif image is None:
                raise Failed(f"{instruction} before FROM")
            else:
                self._step(image, instruction, value, stages, context, ignored)
        assert image is not None
        return image

    def _from(self, known: Image | None, base: str) -> Image:
        root = Path(f"{self._work}/root-{len(list(self._work.glob('root-*')))}")
        if known is not None:
            run(["cp", "--archive", "--reflink=auto", str(known.root), str(root)], f"FROM {base}")
            return dataclasses.replace(known, root=root, environment=dict(known.environment))
        if base not in DEBIAN:
            raise Failed(f"FROM {base}: only {', '.join(DEBIAN)} and what was built before stand for an image here")
        archive = self._cache / f"{base.replace(':', '-')}.tar"
        if not archive.exists():
            self._bootstrap(DEBIAN[base], archive)
        root.mkdir()
        run(["tar", "--extract", "--file", str(archive), "--directory", str(root), "--numeric-owner"], f"FROM {base}")
        return Image(root=root)

    def _bootstrap(self, suite: str, archive: Path) -> None:
        say(f"making Debian {suite} with {', '.join(PACKAGES)}")
        self._cache.mkdir(parents=True, exist_ok=True)
        unwanted = [f"--dpkgopt=path-exclude={pattern}" for pattern in UNWANTED]
        part = archive.with_suffix(".part.tar")
        command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}", *unwanted]
        run([*command, suite, str(part)], "mmdebstrap")
        part.replace(archive)

    def _step(  # noqa: PLR0912 - one branch for each instruction
        self, image: Image, instruction: str, value: str, stages: dict[str, Image], context: Path, ignored: Ignored
    ) -> None:
        if instruction == "ENV":
            image.environment |= dict(pair.split("=", 1) for pair in value.split())
        elif instruction == "WORKDIR":
            image.workdir = value
            (image.root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif instruction == "USER":
            image.user = value
        elif instruction == "EXPOSE":
            image.exposed.append(value)
        elif instruction == "STOPSIGNAL":
            image.stop_signal = value
        elif instruction == "ENTRYPOINT":
            image.entrypoint, image.command = json.loads(value), []
        elif instruction == "CMD":
            image.command = json.loads(value)
        elif instruction == "HEALTHCHECK":
            image.health = json.loads(value.partition("CMD ")[2])
        elif instruction == "RUN":
            _run_step(image, value)
        elif instruction == "COPY":
            words = value.split()
            stage = stages[words.pop(0).removeprefix("--from=")].root if words[0].startswith("--from=") else None
            if words[0].startswith("--"):
                raise Failed(f"COPY {words[0]}: not known here")
            *sources, named = words
            target = image.root / str(PurePosixPath(image.workdir) / named).lstrip("/")
            if stage is None:
                copy_in(context, ignored, sources, target, into=named.endswith(("/", ".")))
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            for source in sources:
                run(["cp", "--archive", "--no-target-directory", f"{stage}/{source.lstrip('/')}", str(target)], value)
        else:
            raise Failed(f"{instruction}: not known here")


def _run_step(image: Image, line: str) -> None:
    """Run a line in the root, as its user, with the network and the certificates of this machine, as engines do."""
    assert image.user.split(":")[0] == "0", "RUN as another user is not known here"
    root = image.root
    (root / "etc" / "resolv.conf").touch()
    prepare = (
        f"mount --bind /etc/resolv.conf {root}/etc/resolv.conf && mount --bind /etc/ssl/certs {root}/etc/ssl/certs"
        f" && mount -t proc proc {root}/proc && mount --bind /dev {root}/dev"
        f' && exec chroot {root} /bin/sh -c \'cd "$0" && exec /bin/sh -ec "$1"\' "$0" "$1"'
    )
    # How this machine's pip finds its index belongs to the machine, not to the image.
    outside = {
        name: value for name, value in os.environ.items() if name.lower().endswith("_proxy") or name == "PIP_CERT"
    }
    unshare = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    environment = ["env", "-i", *(f"{name}={value}" for name, value in (outside | image.environment).items())]
    run([*environment, *unshare, "/bin/sh", "-ec", prepare, image.workdir, line], f"RUN {line}")


class Container:
    """A running container; ``pid`` is that of its first process, seen from here."""

    def __init__(self, image: Image, process: subprocess.Popen[bytes], log: Path, user: tuple[int, int]) -> None:
        self._image, self._process, self._log, self._user = image, process, log, user
        self.pid = 0

    def wait_first_process(self) -> None:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._wait(lambda: bool(children.read_text().split()), "the first process")
        self.pid = int(children.read_text().split()[0])

    def ask(self, path: str, content_type: str = "", body: str = "") -> str:
        """Send a request from inside the container's network; return status and answer."""
        command = ["nsenter", "--target", str(self.pid), "--net", sys.executable, "-c", ASK, path, content_type, body]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False).stdout.strip()

    def wait_ready(self) -> None:
        self._wait(lambda: self.ask("/readyz").startswith("200"), "/readyz")

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a program in the container as its user, as ``docker exec`` does."""
        uid, gid = self._user
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--root", "--wd"]
        command = [*enter, f"--setgid={gid}", f"--setuid={uid}", *command]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=self._image.environment
        )

    def stop(self) -> int:
        os.kill(self.pid, signal.Signals[self._image.stop_signal])
        return self._process.wait(STOP_SECONDS)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            if self._process.poll() is not None:
                raise Failed(f"the container ended with {self._process.returncode}\n{self.log()[-4000:]}")
            if time.monotonic() > deadline:
                raise Failed(f"timed out waiting for {what}\n{self.log()[-4000:]}")
            time.sleep(0.1)


@contextlib.contextmanager
def running(
    image: Image,
    log: Path,
    *,
    user: str = "",
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    volumes: dict[str, Path] | None = None,
) -> Iterator[Container]:
    """Run a container for the block; arguments as those of ``docker run --read-only --tmpfs /tmp``."""
    uid, _, gid = (user or image.user).partition(":")
    words = [*entrypoint, *command] if entrypoint else [*image.entrypoint, *(command or image.command)]
    job = {
        "root": str(image.root),
        "workdir": image.workdir,
        "uid": int(uid),
        "gid": int(gid or 0),
        "command": words,
        "environment": image.environment | (environment or {}),
        "volumes": {inside: str(outside) for inside, outside in (volumes or {}).items()},
    }
    namespaces = ["unshare", "--mount", "--propagation", "private", "--pid", "--net", "--ipc", "--uts", "--fork"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*namespaces, "--kill-child", sys.executable, "-c", ENTER, json.dumps(job)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        container = Container(image, process, log, (job["uid"], job["gid"]))  # type: ignore[arg-type]
        container.wait_first_process()
        yield container
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def expect(condition: bool, what: str, seen: str) -> None:
    if not condition:
        raise Failed(f"{what}: {seen}")
    say(f"{what}: {seen.splitlines()[0] if seen else 'yes'}")


def megabytes(folder: Path) -> int:
    return int(subprocess.check_output(["du", "-sxk", str(folder)]).split()[0]) // 1000


def check_server(image: Image, folder: Path, work: Path) -> None:
    """A folder that is mounted, as the image's own user, with the image's own command."""
    uid, _, gid = image.user.partition(":")
    expect(uid.isdigit() and int(uid) > 0 and gid == "0", "user and group", image.user)
    expect(image.exposed == ["8080"], "port", str(image.exposed))
    with running(image, work / "log", volumes={"/opt/code": folder}) as container:
        container.wait_ready()
        body = str(folder / "example.txt")
        answer = container.ask("/predictUnstructured/", "text/plain", body)
        expect(answer.startswith("200"), "predicts", answer)
        health = container.execute(image.health)
        expect(health.returncode == 0, "HEALTHCHECK", f"exit code {health.returncode} {health.stderr[-500:]}")
        written = container.execute(
            ["/bin/sh", "-c", "for d in / /opt/code /opt/backline /var/tmp; do touch $d/x; done"]
        )
        expect(written.stderr.count("Read-only file system") == 4, "the root cannot be written", written.stderr.strip())
        seen = container.execute(
            ["/bin/sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; grep -E 'Uid|CapEff|NoNew' /proc/1/status"]
        )
        expect(
            "tini" in seen.stdout and "CapEff:\t0000000000000000" in seen.stdout,
            "first process",
            seen.stdout.replace("\n", " "),
        )
        expect(container.ask("/livez").startswith("200"), "/livez", container.ask("/livez"))
        code = container.stop()
        expect(code == 0, "exit code after SIGTERM", str(code))


def check_model(image: Image, example: Path, work: Path) -> None:
    """A model in its own image, as any user that OpenShift comes up with, started as the platforms do."""
    script = ["/opt/code/start_server.sh"]
    variables = {"URL_PREFIX": "/model"}
    with running(image, work / "log", user="1000650000:0", entrypoint=script, environment=variables) as container:
        container.wait_ready()
        answer = container.ask("/model/predict/", "text/csv", str(example))
        expect(answer.startswith("200"), "predicts", answer)
        code = container.stop()
        expect(code == 0, "exit code after SIGTERM", str(code))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("cache", type=Path)
    options = parser.parse_args()
    backline = [sys.executable, "-m", "backline", "new"]
    builder = Builder(options.work, options.cache)
    recipes = ROOT / "deploy" / "container"
    try:
        image = builder.build(recipes / "Containerfile", ROOT)
        builder.images["backline"] = image
        for name, template in (("text", "unstructured"), ("rows", "binary")):
            run([*backline, str(options.work / name), "--template", template], f"backline new {template}")
        check_server(image, options.work / "text", options.work)
        say(
            f"the image's root: {megabytes(image.root)} MB,"
            f" of which the server and its packages: {megabytes(image.root / 'opt/backline')} MB"
        )
        model = builder.build(recipes / "Containerfile.model", options.work / "rows")
        check_model(model, options.work / "rows" / "example.csv", options.work)
        say(f"the root with the model and its packages: {megabytes(model.root)} MB")
    except Failed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
