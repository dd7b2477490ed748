"""What counts as the same answer, and how differences are named."""

from __future__ import annotations

import gzip
import io
import json
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from backline.parity.compare import Comparison, Rules, Tolerance, compare_answers, unsettled_fields
from backline.parity.exchange import Answer

JSON = "application/json"


def answer(body: Any, content_type: str = JSON, status: int = 200, **more: Any) -> Answer:
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    headers = [("content-type", content_type), *more.pop("headers", [])]
    return Answer(status=status, headers=headers, body=content, **more)


def compare(reference: Any, candidate: Any, content_type: str = JSON, **rules: Any) -> Comparison:
    return compare_answers(answer(reference, content_type), answer(candidate, content_type), Rules(**rules))


def found(comparison: Comparison) -> list[tuple[str, str, Any, Any]]:
    return [(each.path, each.kind, each.reference, each.candidate) for each in comparison.differences]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)


@given(VALUES)
def test_any_answer_is_the_same_as_itself_however_it_is_written(value: Any) -> None:
    spaced = json.dumps(value, indent=3).encode()
    assert compare_answers(answer(json.dumps(value)), answer(spaced), Rules(exact_types=True)).is_same


@settings(deadline=None)  # the first difference imports deepdiff
@given(VALUES, VALUES)
def test_what_differs_is_found_by_strict_rules(ours: Any, theirs: Any) -> None:
    """Against the plainest comparison that there is: the texts of both, written in one way."""
    rules = Rules(relative=0.0, absolute=0.0, ignored=(), exact_types=True)
    same = json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)
    comparison = compare_answers(answer(json.dumps(ours)), answer(json.dumps(theirs)), rules)
    if not _has_minus_zero(ours) and not _has_minus_zero(theirs):  # 0.0 and -0.0 are one number
        assert comparison.is_same is same
    assert bool(comparison.differences) is not comparison.is_same


def _has_minus_zero(value: Any) -> bool:
    return "-0.0" in json.dumps(value)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.integers(0, 19), st.floats(0.01, 10))
def test_one_number_that_is_off_is_found_at_its_place_with_its_size(values: list[float], place: int, by: float) -> None:
    place %= len(values)
    other = [value + (by if number == place else 0) for number, value in enumerate(values)]
    comparison = compare({"predictions": values}, {"predictions": other})
    assert [each.path for each in comparison.differences] == [f"$.predictions[{place}]"]
    assert comparison.differing == {"$.predictions[*]": 1}
    assert comparison.compared["$.predictions[*]"] == len(values)
    size, _ = comparison.largest["$.predictions[*]"]
    assert math.isclose(size, abs(other[place] - values[place]))


def test_numbers_within_the_tolerance_are_the_same() -> None:
    assert compare([0.1 + 0.2], [0.3]).is_same
    assert not compare([0.3001], [0.3]).is_same
    assert compare([0.3001], [0.3], absolute=0.001).is_same
    assert compare([1000.0], [1000.9], relative=0.001).is_same


def test_a_tolerance_is_for_the_field_that_it_names() -> None:
    tolerances = (Tolerance(pattern="price", absolute=0.5),)
    comparison = compare({"price": 1.0, "count": 1.0}, {"price": 1.4, "count": 1.4}, tolerances=tolerances)
    assert found(comparison) == [("$.count", "value", 1.0, 1.4)]


def test_integers_are_the_same_only_when_equal_unless_a_tolerance_names_them() -> None:
    assert not compare([10**12], [10**12 + 1]).is_same
    assert compare([10**12], [10**12 + 1], tolerances=(Tolerance(pattern="$[*]", absolute=1),)).is_same


def test_whether_1_is_1_0_is_a_setting() -> None:
    assert compare({"a": 1}, {"a": 1.0}).is_same
    assert found(compare({"a": 1}, {"a": 1.0}, exact_types=True)) == [("$.a", "type", 1, 1.0)]
    assert found(compare({"a": 1}, {"a": 2.0}, exact_types=True)) == [("$.a", "value", 1, 2.0)]
    assert not compare({"a": True}, {"a": 1}).is_same
    assert not compare({"a": "1"}, {"a": 1}).is_same


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("[NaN]", "[NaN]", True),
        ("[NaN]", "[1.0]", False),
        ("[NaN]", "[null]", False),
        ("[Infinity]", "[Infinity]", True),
        ("[Infinity]", "[-Infinity]", False),
        ("[Infinity]", "[1e308]", False),
        ("[1e400]", "[Infinity]", True),
    ],
)
def test_nan_and_the_infinities(ours: str, theirs: str, same: bool) -> None:
    assert compare(ours, theirs).is_same is same


def test_keys_and_items_that_only_one_side_has_are_named() -> None:
    comparison = compare({"a": 1, "b": [1, 2, 3]}, {"c": 1, "b": [1, 2]})
    assert sorted(found(comparison)) == [
        ("$.a", "missing", 1, None),
        ("$.b[2]", "missing", 3, None),
        ("$.c", "extra", None, 1),
    ]


def test_order_matters_unless_the_list_is_said_to_be_a_set() -> None:
    ours, theirs = {"tags": ["a", "b", "c"], "n": [1, 2]}, {"tags": ["c", "a", "b"], "n": [1, 2]}
    assert not compare(ours, theirs).is_same
    assert compare(ours, theirs, unordered=("tags",)).is_same
    assert found(compare(ours, {"tags": ["c", "a"], "n": [1, 2]}, unordered=("tags",))) == [
        ("$.tags[2]", "missing", "b", None)
    ]
    assert compare([1.0, 2.0], [2.0, 1.0 + 1e-13], unordered=("$",)).is_same


def test_ignored_fields_do_not_count_and_are_counted() -> None:
    comparison = compare({"id": "a", "created": 1, "x": 1}, {"id": "b", "x": 1})
    assert comparison.is_same
    assert comparison.ignored == {"$.id": 1, "$.created": 1}
    assert not compare({"id": "a"}, {"id": "b"}, ignored=()).is_same
    deep = {"rows": [{"meta": {"when": 1}, "y": 1}]}
    assert compare(deep, {"rows": [{"meta": {"when": 2}, "y": 1}]}, ignored=("meta",)).is_same


def test_a_name_with_a_dot_is_one_step() -> None:
    comparison = compare({"a.b": 1, "a": {"b": 2}}, {"a.b": 3, "a": {"b": 2}})
    assert [each.path for each in comparison.differences] == ["$['a.b']"]


def test_statuses() -> None:
    def statuses(a: int, b: int, **rules: Any) -> bool:
        return compare_answers(answer({"x": a}, status=a), answer({"y": b}, status=b), Rules(**rules)).is_same

    assert statuses(400, 422)
    assert not statuses(400, 422, errors="status")
    assert statuses(400, 422, errors="status", same_statuses=((400, 422),))
    assert not statuses(422, 422, errors="body")
    assert not statuses(400, 500)
    assert not statuses(200, 400)
    assert not compare_answers(answer([1], status=200), answer([1], status=201), Rules()).is_same


def test_content_types_are_compared_without_their_parameters() -> None:
    same = compare_answers(answer([1], "application/json"), answer([1], "Application/JSON; charset=utf-8"), Rules())
    assert same.is_same
    other = compare_answers(answer("a\n1\n", "text/csv"), answer("a\n1\n", "application/csv"), Rules())
    assert found(other) == [("content type", "content type", "text/csv", "application/csv")]
    assert compare_answers(
        answer("a\n1\n", "text/csv"), answer("a\n1\n", "application/csv"), Rules(content_types=False)
    ).is_same


def test_csv_is_compared_by_column() -> None:
    assert compare("a,b\n1,x\n2,y\n", 'a,b\r\n1.0,"x"\r\n2.0,y\r\n', "text/csv").is_same
    comparison = compare("a,b\n1,x\n2,y\n", "b,a\nx,1\nz,2\n", "text/csv")
    assert found(comparison) == [
        ("column order", "column order", ["a", "b"], ["b", "a"]),
        ("$.b[1]", "value", "y", "z"),
    ]
    assert compare("a,b\n1,x\n", "b,a\nx,1\n", "text/csv", column_order=False).is_same
    assert not compare("zip\n01234\n", "zip\n1234\n", "text/csv").is_same
    assert compare("a\nnan\n", "a\nNaN\n", "text/csv").is_same


def test_a_json_table_in_split_form_is_compared_by_column() -> None:
    ours = {"extra": {"columns": ["a", "b"], "index": [0, 1], "data": [[1, "x"], [2, "y"]]}}
    comparison = compare(ours, {"extra": {"columns": ["a", "b"], "index": [0, 1], "data": [[1, "x"], [2, "z"]]}})
    assert found(comparison) == [("$.extra.data.b[1]", "value", "y", "z")]
    turned = {"extra": {"columns": ["b", "a"], "index": [0, 1], "data": [["x", 1], ["y", 2]]}}
    assert {each.field for each in compare(ours, turned).differences} == {"$.extra.columns[*]"}
    assert compare(ours, turned, column_order=False).is_same
    ragged = {"columns": ["a"], "data": [[1], [2, 3]]}
    assert compare(ragged, ragged).is_same


def test_a_body_that_is_not_what_it_says_is_a_difference() -> None:
    comparison = compare('{"a": 1}', "{", JSON)
    assert [each.kind for each in comparison.differences] == ["unreadable"]
    assert compare("{", "{", JSON).is_same


def table(**columns: Any) -> bytes:
    made = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    return sink.getvalue()


def test_arrow_and_parquet_are_compared_by_column() -> None:
    arrow = "application/vnd.apache.arrow.stream"
    ours = table(a=[1.0, 2.0], b=["x", "y"])
    comparison = compare(ours, table(a=[1.0, 2.5], b=["x", "y"]), arrow)
    assert found(comparison) == [("$.a[1]", "value", 2.0, 2.5)]
    wider = table(a=pa.array([1, 2], pa.int32()))
    assert compare(table(a=[1, 2]), wider, arrow).is_same
    assert found(compare(table(a=[1, 2]), wider, arrow, exact_types=True)) == [("type of a", "type", "int64", "int32")]
    files = []
    for compression in ("snappy", "none"):
        sink = io.BytesIO()
        parquet.write_table(pa.table({"a": [1.0, 2.0]}), sink, compression=compression)
        files.append(sink.getvalue())
    assert files[0] != files[1]
    assert compare(files[0], files[1], "application/vnd.apache.parquet").is_same
    assert [each.kind for each in compare(files[0], b"PAR1", "application/vnd.apache.parquet").differences] == [
        "unreadable"
    ]


def chunks(*deltas: dict[str, Any], id_: str = "chatcmpl-1", done: bool = True) -> str:
    events = [
        {"id": id_, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": each, "finish_reason": None}]}
        for each in deltas
    ]
    return "".join(f"data: {json.dumps(each)}\n\n" for each in events) + ("data: [DONE]\n\n" if done else "")


def test_a_stream_is_compared_by_what_it_adds_up_to() -> None:
    sse = "text/event-stream"
    ours = chunks({"role": "assistant"}, {"content": "Hel"}, {"content": "lo"})
    assert compare(
        ours, chunks({"role": "assistant", "content": "Hello"}, id_="chatcmpl-2"), sse, ignored=("id",)
    ).is_same
    comparison = compare(ours, chunks({"role": "assistant", "content": "Hallo"}), sse)
    assert found(comparison) == [("$.message.choices[0].message.content", "value", "Hello", "Hallo")]
    cut = compare(ours, chunks({"role": "assistant"}, {"content": "Hello"}, done=False), sse)
    assert found(cut) == [("$.complete", "value", True, False)]


def test_tool_calls_of_a_stream_are_put_together() -> None:
    sse = "text/event-stream"
    first = {"index": 0, "id": "call_1", "function": {"name": "add", "arguments": ""}}
    pieces = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in ('{"a"', ": 1}")]
    whole = {"index": 0, "id": "call_1", "function": {"name": "add", "arguments": '{"a": 1}'}}
    ours, theirs = chunks({"tool_calls": [first]}, *pieces), chunks({"tool_calls": [whole]})
    assert compare(ours, theirs, sse).is_same


def test_a_compressed_answer_is_unpacked() -> None:
    body = json.dumps({"a": 1}).encode()
    packed = answer(gzip.compress(body), headers=[("content-encoding", "gzip")])
    assert compare_answers(answer(body), packed, Rules()).is_same


def test_no_answer_is_a_difference_unless_neither_has_one() -> None:
    none = Answer(status=0, error="no complete answer within 5 s")
    comparison = compare_answers(answer([1]), none, Rules())
    assert [each.kind for each in comparison.differences] == ["no answer"]
    assert compare_answers(none, none, Rules()).is_same


def test_fields_that_the_reference_answers_differently_are_unsettled() -> None:
    ours, again = answer({"x": 0.1, "y": 1}), answer({"x": 0.7, "y": 1})
    assert unsettled_fields(ours, again, Rules()) == {"$.x"}


def test_a_large_answer_with_one_difference_is_told_apart_quickly_enough_to_be_used() -> None:
    rows = [{"yes": number / 7, "no": 1 - number / 7} for number in range(20_000)]
    other = [dict(row) for row in rows]
    other[7]["yes"] += 1
    comparison = compare({"predictions": rows}, {"predictions": other})
    assert [each.path for each in comparison.differences] == ["$.predictions[7].yes"]


def test_many_differences_of_one_field_do_not_hide_those_of_another() -> None:
    ours = {"a": list(range(1000)), "b": 1}
    comparison = compare(ours, {"a": [value + 1 for value in range(1000)], "b": 1 + 1e-6})
    assert comparison.differing == {"$.a[*]": 1000, "$.b": 1}
    assert "$.b" in {each.path for each in comparison.differences}
    assert len(comparison.differences) <= 200


def test_the_rules_survive_being_written_down() -> None:
    rules = Rules(
        relative=1e-3,
        tolerances=(Tolerance(pattern="a", absolute=1.0),),
        unordered=("b",),
        same_statuses=((400, 422),),
        ignored=("x",),
    )
    assert Rules.from_json(json.loads(json.dumps(rules.to_json()))) == rules
