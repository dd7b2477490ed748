from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from backline.errors import ConfigError
from backline.parity.exchange import Answer, Call, Request
from backline.parity.store import Store, StoredVerdict, StoreFull
from backline.parity.writer import StoreWriter


def call(number: int = 0, body: bytes = b"a,b\n1,2\n", answer_body: bytes = b"{}") -> Call:
    return Call(
        request=Request(
            method="POST", target=f"/predict/?n={number}", headers=[("content-type", "text/csv")], body=body
        ),
        answer=Answer(status=200, headers=[("content-type", "application/json")], body=answer_body, seconds=0.25),
        at=float(number),
    )


def test_a_call_comes_back_as_it_was_also_from_a_file_opened_anew(tmp_path: Path) -> None:
    bodies = [b"", bytes(range(256)) * 40, os.urandom(5000)]
    with Store.create(tmp_path / "calls.sqlite") as store:
        numbers = [store.add_call(call(place, body, body[::-1])) for place, body in enumerate(bodies)]
        store.commit()
    with Store.open(tmp_path / "calls.sqlite") as store:
        assert store.call_ids() == numbers
        for place, (number, body) in enumerate(zip(numbers, bodies, strict=True)):
            assert store.call(number) == call(place, body, body[::-1])
    assert not list(tmp_path.glob("*-wal"))


def test_equal_bodies_are_kept_once_and_compressed(tmp_path: Path) -> None:
    body = b"0.123456789,\n" * 10_000
    with Store.create(tmp_path / "calls.sqlite") as store:
        for number in range(50):
            store.add_call(call(number, body, body))
        store.commit()
    assert (tmp_path / "calls.sqlite").stat().st_size < len(body)


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    with Store.create(tmp_path / "calls.sqlite") as store:
        store.add_call(call())
        for file in tmp_path.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_a_full_store_drops_its_oldest_calls_and_keeps_within_its_bound(tmp_path: Path) -> None:
    bound = 400_000
    with Store.create(tmp_path / "calls.sqlite", max_bytes=bound) as store:
        for number in range(400):
            store.add_call(call(number, os.urandom(2000), os.urandom(2000)))
            store.commit()
        left = [stored.call for stored in store.calls()]
        assert store.dropped_oldest == 400 - len(left)
    assert left[-1].at == 399
    assert [each.at for each in left] == list(range(400 - len(left), 400))
    assert 50 < len(left) < 100
    assert (tmp_path / "calls.sqlite").stat().st_size < bound * 1.2


def test_a_body_is_dropped_only_with_the_last_call_that_has_it(tmp_path: Path) -> None:
    shared = os.urandom(1000)
    with Store.create(tmp_path / "calls.sqlite", max_bytes=200_000) as store:
        for number in range(200):
            store.add_call(call(number, shared, os.urandom(3000)))
            store.commit()
        assert {stored.call.request.body for stored in store.calls()} == {shared}


def test_a_full_store_can_stop_instead(tmp_path: Path) -> None:
    with Store.create(tmp_path / "calls.sqlite", max_bytes=200_000, when_full="stop") as store:

        def fill() -> None:
            for number in range(400):
                store.add_call(call(number, os.urandom(2000)))
                store.commit()

        with pytest.raises(StoreFull, match="--max-size"):
            fill()
        assert next(iter(store.calls())).call.at == 0


def test_verdicts_are_kept_by_run_and_replaced(tmp_path: Path) -> None:
    with Store.create(tmp_path / "calls.sqlite") as store:
        number = store.add_call(call())
        run = store.add_run("run", {"a": 1}, 1.0)
        for verdict in ("different", "flaky"):
            store.set_verdict(run, StoredVerdict(call=number, round=0, verdict=verdict, detail={"compared": {}}))
        assert [each.verdict for each in store.verdicts(run)] == ["flaky"]
        assert [(each.id, each.settings) for each in store.runs()] == [(run, {"a": 1})]


@pytest.mark.parametrize(
    "content", [b"", b"text", b"SQLite format 3\x00" + b"x" * 5000], ids=["empty", "text", "damaged"]
)
def test_a_file_that_is_no_store_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        Store.open(path)


@pytest.mark.parametrize("column", ["headers", "body", "target"])
def test_a_damaged_store_is_told_by_name(tmp_path: Path, column: str) -> None:
    path = tmp_path / "calls.sqlite"
    with Store.create(path) as store:
        store.add_call(call())
        store.commit()
    with sqlite3.connect(path) as database:
        if column == "body":
            database.execute("UPDATE bodies SET packed = 1, content = x'789c00'")
        else:
            database.execute(f"UPDATE calls SET {column} = CAST(x'ff' AS TEXT)")
    database.close()
    with Store.open(path) as store, pytest.raises(ConfigError, match=r"calls\.sqlite: is damaged"):
        list(store.calls())


def test_pages_that_are_overwritten_are_told_by_the_files_name(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    with Store.create(path) as store:
        for number in range(50):
            store.add_call(call(number, os.urandom(500)))
        store.commit()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa7" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"calls\.sqlite: is "), Store.open(path) as store:
        list(store.calls())


def test_another_sqlite_file_and_another_version_are_refused_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(ConfigError, match="none of recorded calls"):
        Store.create(other)
    later = tmp_path / "later.sqlite"
    Store.create(later).close()
    with sqlite3.connect(later) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="version 99"):
        Store.open(later)


def test_the_writer_keeps_what_it_was_handed_before_it_was_closed(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "calls.sqlite")
    for number in range(500):
        assert writer.put(lambda store, number=number: store.add_call(call(number)), 100)  # type: ignore[misc]
    writer.close()
    assert writer.written == 500
    with Store.open(tmp_path / "calls.sqlite") as store:
        assert store.count_calls() == 500


def test_the_writer_drops_and_counts_what_does_not_fit_rather_than_wait(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "calls.sqlite", max_waiting=1000)
    kept = [writer.put(lambda store: store.add_call(call()), 900) for _ in range(50)]  # type: ignore[arg-type]
    writer.close()
    assert kept[0]
    assert writer.dropped == kept.count(False) > 0
    assert writer.written == kept.count(True)


def test_the_writer_says_why_it_writes_no_more(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "calls.sqlite", max_bytes=100_000, when_full="stop")
    for _ in range(100):
        writer.put(lambda store: store.add_call(call(0, os.urandom(5000))), 0)  # type: ignore[arg-type]
    writer.close()
    assert writer.failure is not None
    assert "--max-size" in writer.failure


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        StoreWriter(tmp_path / "none" / "calls.sqlite")
