"""``backline score`` on files in chunks: the same output as of the whole file, whatever happens on the way."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

pytestmark = pytest.mark.slow

# Says of each row what it got: types and values as they are.
ECHO = """
import os, time
import pandas as pd

def load_model(code_dir):
    return code_dir

def score(data, model, **kwargs):
    marks = [str(name) for name in data.columns]
    if "refuse" in marks and (data["refuse"].astype(str) == "yes").any():
        raise ValueError("this row is refused")
    if "die" in marks and (data["die"].astype(str) == "yes").any():
        once = os.path.join(model, "died")
        if not os.path.exists(once) or os.path.exists(os.path.join(model, "always")):
            open(once, "w").close()
            os._exit(9)
    if os.path.exists(os.path.join(model, "slow")):
        time.sleep(0.25)
    columns = {"Predictions": [float(len(data.columns))] * len(data)}
    for name in marks:
        columns["is " + name] = [str(data[name].dtype) + " " + repr(value) for value in data[name].tolist()]
    return pd.DataFrame(columns)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "custom.py").write_text(ECHO)
    (path / "model-metadata.yaml").write_text("name: echo\ntype: inference\ntargetType: regression\n")
    return path


def score(folder: Path, *words: object, fails: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backline", "score", str(folder), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) == fails, done.stderr
    return done


CHUNKS = ("--batch", "on", "--chunk-size", "1KiB", "--workers", "2")


def rows_of_csv(end: str = "\n") -> str:
    """Columns whose types show late, quoted line feeds, blank lines."""
    lines = ["id,late float,late missing,late text,flag,text,empty,big"]
    for row in range(400):
        lines.append(
            f"{row},{row if row < 300 else 0.5},{'' if row == 310 else row},{'x' if row == 390 else '00' + str(row)},"
            f'{"" if row == 200 else row % 2 == 0},"line {row}{end}of ""two""",,{2**64 if row == 100 else row}'
        )
        if row % 50 == 0:
            lines.append("")
    return end.join(lines) + end


@pytest.mark.parametrize(("end", "name"), [("\n", "out.csv"), ("\r\n", "out.jsonl"), ("\n", "out.json")])
def test_chunks_of_csv_give_the_bytes_of_the_whole(folder: Path, tmp_path: Path, end: str, name: str) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(rows_of_csv(end), newline="")
    whole, chunked = tmp_path / f"whole-{name}", tmp_path / name
    score(folder, "-i", source, "-o", whole)
    done = score(folder, "-i", source, "-o", chunked, *CHUNKS)
    assert "Scored 400 rows" in done.stderr
    assert chunked.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["model", "rows.csv", name, f"whole-{name}"])


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow"])
def test_chunks_give_the_table_of_the_whole(folder: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(rows_of_csv())
    tables = []
    for words in ((), CHUNKS):
        output = tmp_path / f"{len(words)}-{name}"
        score(folder, "-i", source, "-o", output, *words)
        if name == "out.parquet":
            tables.append(pyarrow.parquet.read_table(output))
        else:
            tables.append(pyarrow.ipc.open_stream(output.read_bytes()).read_all())
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "arrows"])
def test_chunks_of_other_formats_give_the_bytes_of_the_whole(folder: Path, tmp_path: Path, kind: str) -> None:
    source = tmp_path / f"rows.{kind}"
    records: list[dict[str, Any]] = [
        {"a": row, "b": None if row == 150 else row, "c": None if row < 180 else "x", "d": row % 3 == 0, "e": row / 4}
        for row in range(200)
    ]
    if kind == "jsonl":
        records[190]["new"] = "only here"
        records[195]["a"] = 0.5
        source.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        table = pa.Table.from_pylist(records)
        if kind == "parquet":
            pyarrow.parquet.write_table(table, source, row_group_size=30)
        else:
            open_writer = pyarrow.ipc.new_file if kind == "arrow" else pyarrow.ipc.new_stream
            with open_writer(source, table.schema) as writer:
                writer.write_table(table, max_chunksize=30)
    score(folder, "-i", source, "-o", tmp_path / "whole.csv")
    score(folder, "-i", source, "-o", tmp_path / "out.csv", *CHUNKS)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_gzip_goes_in_and_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(rows_of_csv())
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(rows_of_csv().encode()))
    score(folder, "-i", tmp_path / "rows.csv", "-o", tmp_path / "whole.csv")
    score(folder, "-i", tmp_path / "rows.csv.gz", "-o", tmp_path / "out.csv.gz", *CHUNKS)
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()) == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_a_run_that_is_killed_goes_on_with_resume(folder: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(gzip.compress(rows_of_csv().encode()) if name.endswith(".gz") else rows_of_csv().encode())
    score(folder, "-i", source, "-o", tmp_path / "whole.csv", *CHUNKS)
    (folder / "slow").touch()
    output = tmp_path / "out.csv"
    journal = tmp_path / ".out.csv.journal"
    words = [sys.executable, "-m", "backline", "score", folder, "-i", source, "-o", output, *CHUNKS]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(list(map(str, words)), stderr=log)
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not output.exists()
    (folder / "new file").touch()
    told = score(folder, "-i", source, "-o", output, *CHUNKS, "--resume", fails=True).stderr
    assert "the model folder has changed" in told
    (folder / "new file").unlink()
    changed = source.stat().st_mtime_ns
    os.utime(source, ns=(1, 1))
    told = score(folder, "-i", source, "-o", output, *CHUNKS, "--resume", fails=True).stderr
    assert "the input file has changed" in told
    os.utime(source, ns=(changed, changed))
    assert not output.exists()
    done = score(folder, "-i", source, "-o", output, *CHUNKS, "--resume")
    assert "Going on behind the" in done.stderr
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not journal.exists()


def test_what_is_left_of_a_run_is_told_and_begun_anew(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(rows_of_csv())
    (tmp_path / ".out.csv.part").write_text("left")
    done = score(folder, "-i", source, "-o", tmp_path / "out.csv", *CHUNKS)
    assert "is left of a run that was cut short" in done.stderr
    assert not (tmp_path / ".out.csv.part").exists()


def bad_rows() -> str:
    lines = ["a,b,refuse"]
    for row in range(300):
        text = f"{row},x,no"
        text = {77: "77,x", 150: "150,x,no,more", 220: '220,"two\nlines",yes'}.get(row, text)
        lines.append(text)
    return "\n".join(lines) + "\n"


def test_rows_that_cannot_be_scored_are_written_to_a_file_of_their_own(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(bad_rows())
    rejects = tmp_path / "rejects.jsonl"
    done = score(folder, "-i", source, "-o", tmp_path / "out.csv", *CHUNKS, "--rejects", rejects)
    assert "Scored 297 rows" in done.stderr
    assert "Rejected 3 rows" in done.stderr
    found = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(each["row"], each["line"]) for each in found] == [(78, 79), (151, 152), (221, 222)]
    assert found[0]["record"] == "77,x"
    assert "2 fields where the header has 3" in found[0]["reason"]
    assert "this row is refused" in found[2]["reason"]
    good = "".join(
        line + "\n"
        for line in bad_rows().replace('"two\nlines"', "two").splitlines()
        if not line.startswith(("77,", "150,", "220,"))
    )
    (tmp_path / "good.csv").write_text(good)
    score(folder, "-i", tmp_path / "good.csv", "-o", tmp_path / "whole.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_without_rejects_the_first_bad_row_is_named_by_its_line(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(bad_rows())
    told = score(folder, "-i", source, "-o", tmp_path / "out.csv", *CHUNKS, fails=True).stderr
    assert "line 79 of the input: 2 fields where the header has 3" in told
    assert not (tmp_path / "out.csv").exists()


def test_a_word_among_numbers_is_the_fault_of_its_row(folder: Path, tmp_path: Path) -> None:
    refuses_text = "    if data['a'].dtype.kind not in 'if':\n        raise ValueError('a must be numbers')\n"
    custom = folder / "custom.py"
    custom.write_text(ECHO.replace("    marks =", refuses_text + "    marks ="))
    source = tmp_path / "rows.csv"
    # The missing value in b has all of it read for its types, and the word comes behind it.
    source.write_text(
        "a,b\n" + "".join(f"{'x' if row == 350 else row},{'' if row == 200 else row}\n" for row in range(400))
    )
    told = score(folder, "-i", source, "-o", tmp_path / "out.csv", *CHUNKS, fails=True).stderr
    assert "line 352 of the input" in told
    rejects = tmp_path / "rejects.jsonl"
    score(folder, "-i", source, "-o", tmp_path / "out.csv", *CHUNKS, "--rejects", rejects)
    assert [json.loads(line)["record"] for line in rejects.read_text().splitlines()] == ["x,350"]
    source.write_text(source.read_text().replace("x,350\n", ""))
    score(folder, "-i", source, "-o", tmp_path / "whole.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_worker_that_dies_on_a_chunk_costs_a_second_try(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("a,die\n" + "".join(f"{row},{'yes' if row == 200 else 'no'}\n" for row in range(400)))
    done = score(folder, "-i", source, "-o", tmp_path / "out.csv", *CHUNKS)
    assert "Scored 400 rows" in done.stderr
    (folder / "died").unlink()
    (folder / "always").touch()
    told = score(folder, "-i", source, "-o", tmp_path / "again.csv", *CHUNKS, fails=True).stderr
    assert "died on this request" in told
    assert "the same command with --resume goes on" in told
    assert not (tmp_path / "again.csv").exists()


def test_a_run_that_was_killed_while_it_named_its_output_is_finished(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(rows_of_csv())
    output, journal = tmp_path / "out.csv", tmp_path / ".out.csv.journal"
    kept = tmp_path / "kept"
    words = [sys.executable, "-m", "backline", "score", str(folder), "-i", str(source), "-o", str(output), *CHUNKS]
    # A second name of the journal keeps what the run removes in the end.
    journal.touch()
    os.link(journal, kept)
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    whole = output.read_bytes()
    for part in (None, whole):
        os.link(kept, journal)
        if part is not None:
            (tmp_path / ".out.csv.part").write_bytes(part)
            output.unlink()
        done = score(folder, "-i", source, "-o", output, *CHUNKS, "--resume")
        assert "Scored 400 rows" in done.stderr
        assert output.read_bytes() == whole
        assert not journal.exists()
