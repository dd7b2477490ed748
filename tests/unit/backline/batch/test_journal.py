from __future__ import annotations

import errno
from pathlib import Path

import pytest

from backline.batch.journal import Done, Journal, JournalLocked, State
from backline.batch.target import OutputFailed, PartFile, telling
from backline.errors import ConfigError

IDENTITY = {"input": {"size": 1}, "model": "a"}


def done(index: int) -> Done:
    return Done(index=index, end=index + 1, output_end=10 * (index + 1), rejects_end=0, rows=5, rejected=0)


def written(path: Path) -> Path:
    journal = Journal(path, IDENTITY)
    journal.start(State())
    journal.add([done(0), done(1)], State(types={"a": "v"}, classes={"a": "int64"}))
    journal.add([done(2)], State(types={"a": "vI"}, classes={"a": "float64"}))
    journal.close()
    return path


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    journal = Journal(written(tmp_path / "journal"), IDENTITY)
    assert journal.load()
    assert journal.done == [done(0), done(1), done(2)]
    assert journal.state == State(types={"a": "vI"}, classes={"a": "float64"})
    journal.close()


def test_cut_off_anywhere_it_says_what_was_whole(tmp_path: Path) -> None:
    whole = written(tmp_path / "journal").read_bytes()
    for length in range(len(whole)):
        path = tmp_path / "cut"
        path.write_bytes(whole[:length])
        journal = Journal(path, IDENTITY)
        there = journal.load()
        lines = whole[:length].count(b"\n")
        assert there == (lines > 0)
        assert len(journal.done) == max(lines - 1, 0)
        # The state is that of the chunks it is noted with, never of later ones.
        assert journal.state.types in ([{}], [{}], [{}], [{"a": "v"}], [{"a": "vI"}])[lines]
        if there:
            journal.add([done(9)], State(types={"a": "t"}))
            journal.close()
            again = Journal(path, IDENTITY)
            assert again.load()
            assert again.done[-1] == done(9)
            again.close()
        journal.close()


def test_a_changed_model_is_refused(tmp_path: Path) -> None:
    journal = Journal(written(tmp_path / "journal"), {**IDENTITY, "model": "b"})
    with pytest.raises(ConfigError, match="the model folder has changed"):
        journal.load()
    journal.close()


@pytest.mark.parametrize(
    ("sound", "damaged"),
    [
        (b'"identity"', b'"identitx"'),
        (b'"output_end": 10', b'"output_end": "x"'),
        (b'"rows"', b'"rwos"'),
        (b'{"index": 1', b'[{"index": 1'),
    ],
)
def test_a_damaged_journal_is_told_by_name_or_counts_up_to_the_damage(
    tmp_path: Path, sound: bytes, damaged: bytes
) -> None:
    path = written(tmp_path / "journal")
    content = path.read_bytes()
    assert sound in content
    path.write_bytes(content.replace(sound, damaged, 1))
    journal = Journal(path, IDENTITY)
    if damaged.startswith(b"["):
        assert journal.load()
        assert journal.done == [done(0)]
    else:
        with pytest.raises(ConfigError, match="journal is damaged"):
            journal.load()
    journal.close()


def test_two_runs_cannot_write_to_one_output(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal", IDENTITY)
    with pytest.raises(JournalLocked):
        Journal(tmp_path / "journal", IDENTITY)
    first.close()


def test_a_full_disk_is_told_with_the_way_on(tmp_path: Path) -> None:
    with pytest.raises(OutputFailed, match="make room, then go on with --resume"), telling(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "out.csv")


def test_a_part_file_goes_on_where_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(b"kept and more")
    part = PartFile(path, 4)
    part.write(b"!")
    (tmp_path / "piece").write_bytes(b" piece, and what is not of it")
    part.append(tmp_path / "piece", 6)
    part.close()
    assert path.read_bytes() == b"kept! piece"
    with pytest.raises(ConfigError, match="shorter than its journal says"):
        PartFile(path, 100)
