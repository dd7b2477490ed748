"""What ``--preload`` saves: memory of four workers, time to start them, time to replace one that is killed.

``python benchmarks/preload.py [--kills N] [--forest MIB]`` prints a Markdown table for two models: one numpy array of
1 GiB, and a scikit-learn forest whose size is mostly small Python objects around it. Memory is what the kernel says of
the workers and of the process that they are forked from (PSS: a page that several have counts for each by its share),
after each worker has answered some 1,000 requests. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORKERS = 4
REQUESTS = 1000  # of each worker, about
DEADLINE = 300.0

ARRAY = """
import numpy as np
def load_model(code_dir):
    return np.load(code_dir + "/weights.npy")
def score_unstructured(model, data, **kwargs):
    return str(float(model[:1000].sum()))
"""
OBJECTS = """
import pickle
import numpy as np
def load_model(code_dir):
    with open(code_dir + "/model.pickle", "rb") as file:
        return pickle.load(file)
def score_unstructured(model, data, **kwargs):
    return str(float(model["forest"].predict(np.zeros((1, 8)))[0]) + len(model["names"][data.strip()]))
"""
METADATA = "name: m\ntype: inference\ntargetType: unstructured\n"


def write_array(folder: Path, mebibytes: int) -> None:
    """Write a model that is one array."""
    import numpy as np

    np.save(folder / "weights.npy", np.random.default_rng(0).random(mebibytes << 17))
    (folder / "custom.py").write_text(ARRAY)


def write_objects(folder: Path, mebibytes: int) -> None:
    """Write a forest beside a dictionary of as many small Python objects, all of which are looked up in turn."""
    import pickle

    import numpy as np
    from sklearn.ensemble import RandomForestRegressor

    random = np.random.default_rng(0)
    forest = RandomForestRegressor(20, n_jobs=1).fit(random.random((20_000, 8)), random.random(20_000))
    names = {f"key-{number}": [f"value-{number}"] for number in range(mebibytes * 4000)}
    (folder / "model.pickle").write_bytes(pickle.dumps({"forest": forest, "names": names}))
    (folder / "custom.py").write_text(OBJECTS)


@contextlib.contextmanager
def serving(folder: Path, *flags: str) -> Iterator[tuple[str, float]]:
    """Serve; yields the address and the seconds until all workers were ready."""
    command = [sys.executable, "-m", "backline", "serve", str(folder), "--address", "127.0.0.1:0", *flags]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                log.seek(0)
                text = log.read()
                if found := re.search(r"Listening on (http://[^\s\"]+)", text):
                    break
                if process.poll() is not None or time.monotonic() - began > DEADLINE:
                    raise SystemExit(text)
                time.sleep(0.01)
            while request(found[1], "GET", "/readyz")[0] != 200:
                if process.poll() is not None or time.monotonic() - began > DEADLINE:
                    log.seek(0)
                    raise SystemExit(log.read())
                time.sleep(0.01)
            yield found[1], time.monotonic() - began
        finally:
            process.terminate()
            process.wait()


def request(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send one request."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": "text/plain"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def stats(url: str) -> Any:
    """Return /stats/."""
    return json.loads(request(url, "GET", "/stats/")[1])


def ask(url: str, number: int) -> None:
    """Ask for one prediction, of a key that depends on the number."""
    status, body = request(url, "POST", "/predictUnstructured/", f"key-{number * 977 % 100_000}".encode())
    if status != 200:
        raise SystemExit(f"{status} {body!r}")


def load(url: str, requests: int) -> None:
    """Ask from as many clients as there are workers."""

    def client(first: int) -> None:
        for number in range(first, requests, WORKERS):
            ask(url, number)

    threads = [threading.Thread(target=client, args=(first,)) for first in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def memory(url: str) -> tuple[int, int]:
    """Return PSS and private memory of all that holds the model, in MiB."""
    seen = stats(url)
    pss = private = 0
    for each in (*seen["workers"], *seen.get("preloaded", ())):
        text = Path(f"/proc/{each['pid']}/smaps_rollup").read_text()
        fields = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
        pss += fields["Pss"]
        private += fields["Private_Dirty"] + fields["Private_Clean"]
    return pss >> 10, private >> 10


def kill_one(url: str) -> tuple[float, float]:
    """Kill a worker; return the seconds until another is ready in its place, and until that one has answered."""
    victim = stats(url)["workers"][0]
    began = time.monotonic()
    os.kill(victim["pid"], signal.SIGKILL)
    while True:
        now = stats(url)["workers"]
        fresh = [each for each in now if each["worker"] == victim["worker"] and each["pid"] != victim["pid"]]
        if fresh and fresh[0]["state"] in ("ready", "busy") and len(now) == WORKERS:
            break
        if time.monotonic() - began > DEADLINE:
            raise SystemExit("the worker was not replaced")
    ready = time.monotonic() - began
    while True:  # the one that was ready last is asked first
        ask(url, 0)
        if any(each["pid"] == fresh[0]["pid"] and each["answered"] for each in stats(url)["workers"]):
            return ready, time.monotonic() - began


def measure(name: str, folder: Path, kills: int) -> None:
    """Print the rows of a model."""
    one = 0
    for what, flags in (
        ("1 worker", ["--workers", "1"]),
        (f"{WORKERS} workers", ["--workers", str(WORKERS), "--min-ready", str(WORKERS)]),
        (f"{WORKERS} workers, --preload", ["--workers", str(WORKERS), "--min-ready", str(WORKERS), "--preload"]),
    ):
        with serving(folder, *flags) as (url, seconds):
            load(url, REQUESTS * (1 if what == "1 worker" else WORKERS))
            pss, private = memory(url)
            one = one or pss
            times = "- | -"
            if what != "1 worker":
                few = kills if "preload" in what else max(3, kills // 20)
                found = [kill_one(url) for _ in range(few)]
                times = " | ".join(percentiles([pair[place] for pair in found]) for place in (0, 1))
                times += f" ({few} kills)"
            print(
                f"| {name} | {what} | {seconds:.1f} s | {pss} MiB | {pss / one:.2f} | {private} MiB | {times} |",
                flush=True,
            )


def percentiles(seconds: list[float]) -> str:
    """Return median, 99th percentile and worst, in milliseconds."""
    ordered = sorted(seconds)
    p99 = ordered[math.ceil(len(ordered) * 0.99) - 1]
    return f"{statistics.median(ordered) * 1000:.0f} / {p99 * 1000:.0f} / {ordered[-1] * 1000:.0f} ms"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how many workers are killed, one after another")
    parser.add_argument("--array", type=int, default=1024, metavar="MIB", help="size of the array; 0 leaves it out")
    parser.add_argument("--objects", type=int, default=100, metavar="N", help="thousands of objects by 4; 0 for none")
    given = parser.parse_args()
    print(
        "| model | served by | all ready after | PSS of all | of one worker's | private | SIGKILL to ready, p50 / p99 "
        "/ worst | to its first answer |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, write, size in (("array", write_array, given.array), ("objects", write_objects, given.objects)):
        if size:
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                (folder / "model-metadata.yaml").write_text(METADATA)
                write(folder, size)
                measure(name, folder, given.kills)


if __name__ == "__main__":
    main()
