"""A sample is read from CSV and JSON, and written as it came when it is cut and changed."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from backline.errors import ConfigError
from backline.trial.answers import compare, looks_single, rows_of
from backline.trial.sample import read_sample

CSV = 'a,b\n1,"x, y"\n2,"two\nlines"\n3,\n'


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_csv_keeps_its_cells_and_knows_its_numbers(tmp_path: Path) -> None:
    sample = read_sample(write(tmp_path / "s.csv", CSV), 10)
    assert sample.body().decode() == CSV
    assert sample.body([sample.rows[1]]) == b'a,b\n2,"two\nlines"\n'
    assert sample.body(columns=("b", "a")).startswith(b"b,a\n")
    assert (sample.is_numeric("a"), sample.is_numeric("b"), sample.complete) == (True, False, True)
    assert [row["a"] for row in sample.changed("a", lambda value: sample.empty)] == ["", "", ""]


def test_only_as_many_rows_as_asked_for_are_read(tmp_path: Path) -> None:
    sample = read_sample(write(tmp_path / "s.csv", CSV), 2)
    assert (len(sample.rows), sample.complete) == (2, False)


@pytest.mark.parametrize(
    ("name", "text"),
    [("s.json", '[{"a": 1, "b": null}, {"b": "x"}]'), ("s.jsonl", '{"a": 1, "b": null}\n{"b": "x"}\n')],
)
def test_json_keeps_types_and_what_is_missing(tmp_path: Path, name: str, text: str) -> None:
    sample = read_sample(write(tmp_path / name, text), 10)
    assert sample.body().decode() == text
    assert sample.columns == ("a", "b")
    assert sample.empty is None


def test_gzip_is_opened(tmp_path: Path) -> None:
    (tmp_path / "s.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    assert read_sample(tmp_path / "s.csv.gz", 10).body().decode() == CSV


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.parquet", "PAR1", "needs CSV, JSON records or JSON lines"),
        ("s.csv", "a,b\n1\n", "line 2 has 1 fields where the header has 2"),
        ("s.csv", "a,b\n", "there are no rows in it"),
        ("s.csv", "a,a\n1,2\n", "two columns have the same name"),
        ("s.json", '{"a": 1}', "no list of JSON objects"),
        ("s.jsonl", "{\n", "Expecting property name"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_sample(write(tmp_path / name, text), 10)


def test_answers_are_compared_by_row_and_name_within_a_tolerance() -> None:
    one = rows_of(b'{"predictions": [{"a": 0.5, "b": 0.5}, {"a": 1, "b": 0}]}', "application/json")
    assert compare(one, [{"b": 0.5, "a": 0.5 + 1e-12}, {"a": 1.0, "b": 0.0}]).same
    difference = compare(one, [{"a": 0.5, "b": 0.5}, {"a": 0.9, "b": 0}])
    assert (difference.rows, difference.example) == ((1,), "row 2, a: 1 against 0.9")
    assert difference.largest == pytest.approx(0.1)
    assert not compare(one, one[:1]).same
    assert not compare([{"x": "a"}], [{"x": "b"}]).same


def test_single_precision_is_known_by_its_numbers() -> None:
    assert looks_single([{"a": 0.10000000149011612, "b": "x"}])
    assert not looks_single([{"a": 0.1}])
    assert not looks_single([{"a": "x"}])


def test_extra_output_belongs_to_the_rows() -> None:
    body = b'{"predictions": [1.5], "extraModelOutput": {"columns": ["why"], "index": [0], "data": [["so"]]}}'
    assert rows_of(body, "application/json") == [{"prediction": 1.5, "why": "so"}]
    assert rows_of(b"p,q\n1.5,x\n", "text/csv") == [{"p": 1.5, "q": "x"}]
