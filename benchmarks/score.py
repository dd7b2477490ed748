"""Rows per second of ``backline score`` beside pandas and polars with the same model, on one large CSV file.

``--rows-file`` is repeated until there are ``--rows`` rows. Each contender reads that file and writes one CSV of
probabilities; seconds are those of the whole process with start and loading, and the peak is the resident memory of
the process and all its children together. Prints a JSON line for each figure. See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PEER_CHUNK_ROWS = 100_000
CHECKED_ROWS = 2_000
PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Run the scenarios asked for."""
    arguments = parse_arguments()
    if arguments.peer:
        score_as_peer(arguments)
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        directory = Path(name)
        if "compare" in arguments.scenarios:
            compare(directory, arguments)
        if "growth" in arguments.scenarios:
            growth(directory, arguments)
        if "resume" in arguments.scenarios:
            resume(directory, arguments)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model-python", type=Path, required=True, help="with the model's packages, polars and pyarrow"
    )
    parser.add_argument("--folder", type=Path, required=True, help="the model folder, with one pickled pipeline")
    parser.add_argument("--rows-file", type=Path, required=True, help="CSV rows to repeat")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--growth", type=int, nargs="+", default=[1_000_000, 2_000_000, 5_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scenarios", nargs="+", default=["compare", "growth", "resume"])
    parser.add_argument("--contenders", nargs="+", default=["pandas", "polars", "backline"])
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="further flags of backline score")
    parser.add_argument("--directory", type=Path, default=None, help="where the large files go")
    parser.add_argument("--peer", choices=["pandas", "polars"], help=argparse.SUPPRESS)
    parser.add_argument("--input", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.model_python = arguments.model_python.absolute()
    return arguments


def compare(directory: Path, arguments: argparse.Namespace) -> None:
    """Let all contenders score the same file, turn about."""
    source = make_input(directory, arguments.rows_file, arguments.rows)
    for number in range(arguments.rounds):
        order = arguments.contenders if number % 2 == 0 else arguments.contenders[::-1]
        for contender in order:
            output = directory / f"{contender}.csv"
            figure = run(command_of(contender, source, output, arguments))
            agree = check(output, arguments)
            report("compare", contender, arguments.rows, figure, round=number, checked_rows=agree)
            output.unlink()
    source.unlink()


def growth(directory: Path, arguments: argparse.Namespace) -> None:
    """Score files of growing size."""
    for rows in arguments.growth:
        source = make_input(directory, arguments.rows_file, rows)
        output = directory / "growth.csv"
        figure = run(command_of("backline", source, output, arguments))
        report("growth", "backline", rows, figure, checked_rows=check(output, arguments))
        source.unlink()
        output.unlink()


def resume(directory: Path, arguments: argparse.Namespace) -> None:
    """Kill every process at half of the time, go on, and compare with the output of an undisturbed run."""
    source = make_input(directory, arguments.rows_file, arguments.rows)
    whole, output = directory / "whole.csv", directory / "resumed.csv"
    undisturbed = run(command_of("backline", source, whole, arguments))
    report("undisturbed", "backline", arguments.rows, undisturbed)
    command = command_of("backline", source, output, arguments)
    killed = run(command, kill_after=undisturbed["wall_seconds"] / 2)
    report("killed", "backline", arguments.rows, killed, output_there=output.exists())
    # The flags that were given go to the end of the command.
    place = command.index("--python")
    resumed = run([*command[:place], "--resume", *command[place:]])
    same = digest(output) == digest(whole)
    report("resumed", "backline", arguments.rows, resumed, same_bytes=same)
    if not same:
        sys.exit("the resumed output differs from that of an undisturbed run")
    source.unlink()


def report(scenario: str, contender: str, rows: int, figure: dict[str, Any], **more: Any) -> None:
    """Print a figure."""
    rate = round(rows / figure["wall_seconds"])
    print(
        json.dumps(
            {"scenario": scenario, "contender": contender, "rows": rows, **figure, "rows_per_second": rate, **more}
        ),
        flush=True,
    )


def make_input(directory: Path, rows_file: Path, rows: int) -> Path:
    """Write a file of that many rows."""
    path = directory / f"rows-{rows}.csv"
    header, _, body = rows_file.read_bytes().partition(b"\n")
    lines = body.splitlines(keepends=True)
    with path.open("wb") as file:
        file.write(header + b"\n")
        for _ in range(rows // len(lines)):
            file.write(body)
        file.writelines(lines[: rows % len(lines)])
    return path


def command_of(contender: str, source: Path, output: Path, arguments: argparse.Namespace) -> list[str]:
    """Return how a contender is run."""
    if contender == "backline":
        command = [sys.executable, "-m", "backline", "score", arguments.folder, "--input", source, "--output", output]
        command += ["--python", arguments.model_python, "--log-level", "error", *arguments.flags]
    else:
        command = [arguments.model_python, __file__, "--peer", contender, "--input", source, "--output", output]
        command += ["--model-python", arguments.model_python, "--folder", arguments.folder]
        command += ["--rows-file", arguments.rows_file]
    return list(map(str, command))


def run(command: list[str], *, kill_after: float | None = None) -> dict[str, Any]:
    """Run a command to its end; return seconds and the peak of its resident memory in MiB."""
    peak = 0
    started = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, resident_bytes(tree(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        if kill_after is not None:
            time.sleep(kill_after)
            for pid in tree(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        _, errors = process.communicate()
    finally:
        ended.set()
        watcher.join()
    if process.returncode and kill_after is None:
        sys.exit(f"{command} ended with {process.returncode}:\n{errors.decode()}")
    return {"wall_seconds": round(time.monotonic() - started, 3), "peak_mib": round(peak / 2**20)}


def tree(root: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in (path.name for path in Path("/proc").iterdir()):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                status = Path("/proc", entry, "stat").read_text()
                children.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(int(entry))
    found, pending = [], [root]
    while pending:
        pid = pending.pop()
        found.append(pid)
        pending += children.get(pid, [])
    return found


def resident_bytes(pids: list[int]) -> int:
    """Return the resident memory of processes together; pages that they share count for each of them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path("/proc", str(pid), "statm").read_text().split()[1]) * PAGE
    return total


def digest(path: Path) -> str:
    """Return a digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def check(output: Path, arguments: argparse.Namespace) -> int:
    """Hold rows of an output against what the library gives for these rows; return how many were looked at."""
    program = (
        "import json, sys, joblib, pandas; rows = pandas.read_csv(sys.argv[1], nrows=int(sys.argv[3]));"
        "model = joblib.load(sys.argv[2]);"
        "print(json.dumps([list(map(str, model.classes_)), model.predict_proba(rows).tolist()]))"
    )
    model = next(arguments.folder.glob("*.pkl"))
    command = [arguments.model_python, "-c", program, arguments.rows_file, model, str(CHECKED_ROWS)]
    classes, expected = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    with output.open(newline="") as file:
        for place, (row, wanted) in enumerate(zip(csv.DictReader(file), expected, strict=False)):
            for name, value in zip(classes, wanted, strict=True):
                if not math.isclose(float(row[name]), value, rel_tol=1e-9):
                    sys.exit(f"{output.name}, row {place + 1}: {row[name]} where the library says {value}")
    return len(expected)


def score_as_peer(arguments: argparse.Namespace) -> None:
    """Score as people do by hand; runs under the model's interpreter."""
    import joblib

    model = joblib.load(next(arguments.folder.glob("*.pkl")))
    names = [str(name) for name in model.classes_]
    if arguments.peer == "pandas":
        import pandas as pd

        with arguments.output.open("w") as file:
            for place, frame in enumerate(pd.read_csv(arguments.input, chunksize=PEER_CHUNK_ROWS)):
                predicted = pd.DataFrame(model.predict_proba(frame), columns=names)
                predicted.to_csv(file, index=False, header=place == 0)
        return
    import polars as pl

    with arguments.output.open("wb") as file:
        batches = pl.scan_csv(arguments.input).collect_batches(chunk_size=PEER_CHUNK_ROWS, maintain_order=True)
        for place, batch in enumerate(batches):
            predicted = pl.DataFrame(model.predict_proba(batch.to_pandas()), schema=names)
            predicted.write_csv(file, include_header=place == 0)


if __name__ == "__main__":
    sys.exit(main())
