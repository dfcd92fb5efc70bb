"""What the state file knows, and of which version of a file."""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tagger.errors import (
    AccessError,
    DiskFullError,
    FailureKind,
    LockedError,
    StateError,
    TagError,
)
from tagger.records import (
    Action,
    Failure,
    FileReading,
    Prediction,
    RawField,
    Score,
    TagChange,
    Tags,
    Track,
)
from tagger.state import CachedRow, KnownTrack, RunKind, State, open_state, read_runs
from tagger.state.schema import MIGRATIONS
from tagger.storage import sample_content

TAGS = Tags(("Rock", "Pop"), ("Pop",), "Pop=0.900", "m@1", raw=(RawField("TCON", ("Rock", "Pop")),))
SCORES = (Score("Pop", 0.9), Score("Rock", 0.1))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with open_state(tmp_path / "state.sqlite") as state:
        yield state


@pytest.fixture
def track(tmp_path: Path) -> Track:
    path = tmp_path / "a.mp3"
    path.write_bytes(b"abc")
    return Track.from_stat(path, path.stat())


SILENT = FailureKind.SILENT


def learn(state: State, track: Track, model: str = "m@1") -> None:
    state.save_tags(track, TAGS)
    state.save_prediction(Prediction(track, SCORES, model, 61.5), windows=10)


def load(state: State, track: Track, model: str = "m@1", windows: int = 10) -> KnownTrack:
    return state.load_track(track, model=model, windows=windows)


@pytest.mark.parametrize(
    "lesson",
    [
        lambda state, track: learn(state, track, "m@2"),
        lambda state, track: state.save_failure(Failure(track, "broken")),
        lambda state, track: state.save_model_failure(
            Failure(track, "silent"), model="m", windows=1
        ),
        lambda state, track: state.update_track(track, replace(track, mtime_ns=1), TAGS),
        lambda state, track: state.save_tags(replace(track, size=9), TAGS),
    ],
)
def test_a_row_is_forgotten_with_whatever_is_learned_of_its_file(
    state: State, track: Track, lesson: Callable[[State, Track], None]
) -> None:
    other = replace(track, path=track.path.with_name("b.mp3"), inode=7)
    Path(other.path).write_bytes(b"abc")
    for each in (track, other):
        learn(state, each)
        state.rows.save(each, b"key", Action.KEPT, "the row\r\n")
    folder, files = str(track.path.parent), [file_of(track), file_of(other)]
    row = CachedRow(Action.KEPT, "the row\r\n")
    assert state.rows.find_valid(folder, files, b"key") == [row, row]
    assert state.rows.find_valid(folder, files, b"other settings") == [None, None]
    touched = replace(track, links=2)
    assert state.rows.find_valid(folder, [file_of(touched)], b"key") == [None]
    lesson(state, track)
    assert state.rows.find_valid(folder, files, b"key") == [None, row]


def file_of(track: Track) -> tuple[str, int, int, int, int]:
    return track.path.name, track.size, track.mtime_ns, track.inode, track.links


def test_no_row_is_kept_of_a_file_that_is_not_known(state: State, track: Track) -> None:
    learn(state, track)
    state.rows.save(replace(track, size=9), b"key", Action.KEPT, "the row\r\n")
    assert state.rows.find_valid(str(track.path.parent), [file_of(track)], b"key") == [None]


def test_an_untouched_file_is_known_whole(state: State, track: Track) -> None:
    assert load(state, track) == KnownTrack()
    learn(state, track)
    known = load(state, track)
    assert known == KnownTrack(TAGS, SCORES, 61.5)
    assert known.tags is not None
    assert known.tags.raw == TAGS.raw


def test_a_file_with_another_inode_is_known_by_its_content(state: State, track: Track) -> None:
    learn(state, track)
    mounted_anew = replace(track, inode=4)
    assert load(state, mounted_anew) == KnownTrack(TAGS, SCORES, 61.5)
    Path(track.path).write_bytes(b"xyz")
    assert load(state, replace(track, inode=5)) == KnownTrack()
    assert load(state, mounted_anew) == KnownTrack(TAGS, SCORES, 61.5)


def test_another_recording_on_a_used_inode_is_not_taken_for_a_moved_file(
    state: State, track: Track
) -> None:
    learn(state, track)
    Path(track.path).unlink()
    other = replace(track, path=Path(track.path).with_name("b.mp3"))
    Path(other.path).write_bytes(b"xyz")
    assert load(state, other) == KnownTrack()
    Path(other.path).write_bytes(b"abc")
    assert load(state, other) == KnownTrack(TAGS, SCORES, 61.5)


@pytest.mark.parametrize("field", ["size", "mtime_ns"])
def test_a_changed_file_is_unknown_and_its_old_scores_are_gone(
    state: State, track: Track, field: str
) -> None:
    learn(state, track)
    changed = {
        "size": replace(track, size=4),
        "mtime_ns": replace(track, mtime_ns=4),
    }[field]
    assert load(state, changed) == KnownTrack()
    state.save_tags(changed, Tags())
    assert load(state, changed) == KnownTrack(tags=Tags())
    assert load(state, track) == KnownTrack()


def test_scores_belong_to_one_model_and_number_of_windows(state: State, track: Track) -> None:
    learn(state, track)
    assert load(state, track, model="m@2").scores is None
    assert load(state, track, windows=3).scores is None
    learn(state, track, model="m@2")
    assert load(state, track).scores == SCORES


def test_a_moved_file_is_recognised_but_a_copy_is_not(state: State, track: Track) -> None:
    learn(state, track)
    elsewhere = replace(track, path=Path(track.path).with_name("b.mp3"))
    assert load(state, elsewhere) == KnownTrack()  # as for a second hard link
    Path(track.path).rename(elsewhere.path)
    assert load(state, elsewhere) == KnownTrack(TAGS, SCORES, 61.5)
    assert load(state, track) == KnownTrack()


def test_new_files_are_told_from_known_changed_and_moved_ones(state: State, track: Track) -> None:
    learn(state, track)
    place = Path(track.path)
    other = place.with_name("b.mp3")
    other.write_bytes(b"other")
    moved = replace(Track.from_stat(other, other.stat()), path=place.with_name("c.mp3"))
    learn(state, Track.from_stat(other, other.stat()))
    other.rename(moved.path)
    changed, new = replace(track, size=9, inode=4), replace(track, path=place / "d", inode=0)
    found = state.load_tracks([new, changed, moved], model="m@1", windows=10)
    assert found == [KnownTrack(is_new=True), KnownTrack(), KnownTrack(TAGS, SCORES, 61.5)]
    assert state.load_tracks([track], model="m@1", windows=10) == [load(state, track)]


@pytest.mark.parametrize("is_new", [True, False])
def test_a_look_into_a_file_is_remembered_with_its_sample(
    state: State, track: Track, *, is_new: bool
) -> None:
    sample = sample_content(track.path)
    state.save_reading(track, FileReading(TAGS, None, sample), is_new=is_new)
    assert load(state, track) == KnownTrack(TAGS)
    elsewhere = replace(track, path=Path(track.path).with_name("b.mp3"))
    Path(track.path).rename(elsewhere.path)
    assert load(state, elsewhere) == KnownTrack(TAGS)  # as its sample is the same


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_without_tags_is_remembered_with_the_reason(
    state: State, track: Track, *, is_new: bool
) -> None:
    error = TagError("broken", FailureKind.DAMAGED)
    reading = FileReading(None, error, sample_content(track.path))
    state.save_reading(track, reading, is_new=is_new)
    assert load(state, track) == KnownTrack(failure=Failure.from_error(track, error))


@pytest.mark.parametrize("is_new", [True, False])
def test_a_failure_to_read_tags_is_over_once_they_are_read(
    state: State, track: Track, *, is_new: bool
) -> None:
    error = AccessError("in use", FailureKind.IN_USE)
    sample = sample_content(track.path)
    state.save_reading(track, FileReading(None, error, sample), is_new=is_new)
    state.save_reading(track, FileReading(TAGS, None, sample), is_new=False)
    assert load(state, track) == KnownTrack(TAGS)


def test_a_row_does_not_leave_a_file_that_is_being_replaced(state: State, track: Track) -> None:
    """Its old inode lives on in a hard link, which looks like the file, moved."""
    learn(state, track)
    path = Path(track.path)
    twin = path.with_name("twin.mp3")
    os.link(path, twin)
    state.runs.start("run", RunKind.SCAN, dry_run=False, model="m@1", report=path)
    change = TagChange(track, TAGS, Tags(("Jazz",)), copy_name="copy")
    state.journal.open_entry("run", change)
    (path.with_name("new")).write_bytes(b"new content")
    path.with_name("new").replace(path)
    assert load(state, Track.from_stat(twin, twin.stat())) == KnownTrack()
    assert state.has_path(path)
    assert [entry.path for entry in state.journal.list_unfinished()] == [path]


def test_two_files_that_swapped_their_names_are_both_recognised(state: State, track: Track) -> None:
    path = Path(track.path)
    other = path.with_name("b.mp3")
    other.write_bytes(b"other")
    second = Track.from_stat(other, other.stat())
    learn(state, track)
    state.save_tags(second, Tags(("Folk",)))
    path.rename(path.with_name("c"))
    other.rename(path)
    path.with_name("c").rename(other)
    swapped = replace(track, path=second.path), replace(second, path=track.path)
    assert load(state, swapped[0]).tags == TAGS
    assert load(state, swapped[1]).tags == Tags(("Folk",))


def test_a_failure_is_kept_until_it_is_forgotten(state: State, track: Track) -> None:
    failure = Failure(track, "silent", permanent=True, kind=SILENT)
    state.save_failure(failure)
    assert load(state, track) == KnownTrack(failure=failure)
    learn(state, track)
    assert load(state, track).failure == failure  # until a run settles the track
    state.delete_failure(track)
    assert load(state, track) == KnownTrack(TAGS, SCORES, 61.5)


def test_after_a_write_all_that_was_learned_holds_for_the_new_file(
    state: State, track: Track
) -> None:
    learn(state, track)
    state.runs.start("r1", RunKind.SCAN, dry_run=False)
    entry = state.journal.open_entry("r1", TagChange(track, TAGS, Tags(("Pop",)), ".copy"))
    new = replace(track, size=9, mtime_ns=99, inode=999)
    state.finish_replacement(entry, track, new, Tags(("Pop",)))
    assert load(state, new) == KnownTrack(Tags(("Pop",)), SCORES, 61.5)
    assert load(state, track) == KnownTrack()


def test_the_journal_is_on_disk_before_the_file_is_touched(
    tmp_path: Path, state: State, track: Track
) -> None:
    state.runs.start("r1", RunKind.SCAN, dry_run=False)
    state.journal.open_entry("r1", TagChange(track, TAGS, Tags(), ".copy"))
    with sqlite3.connect(tmp_path / "state.sqlite") as other:
        (before,) = other.execute("SELECT before FROM journal").fetchone()
    assert '"values": ["Rock", "Pop"]' in before


def test_the_queue_gives_back_every_track_in_order(state: State, track: Track) -> None:
    tracks = [replace(track, inode=i, links=2) for i in range(2500)]
    for item in tracks:
        state.queue.add(item)
    assert state.queue.count() == 2500
    assert list(state.queue.list_tracks()) == tracks


def test_a_second_run_is_refused_while_the_first_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x" / "state.sqlite"
    with open_state(path), pytest.raises(LockedError), open_state(path):
        pass
    with open_state(path):
        pass


@contextmanager
def refuse(*words: str) -> Iterator[None]:
    """Expect a StateError with these words, and none about what was not done."""
    with pytest.raises(StateError) as raised:
        yield
    assert all(word in str(raised.value) for word in words), raised.value
    assert "moved away" not in str(raised.value)


def test_what_cannot_be_a_state_file_is_named_with_the_cure(tmp_path: Path) -> None:
    folder, pipe, file = tmp_path / "folder", tmp_path / "pipe", tmp_path / "file"
    folder.mkdir()
    os.mkfifo(pipe)
    file.write_bytes(b"no database, but text that is longer than the header of a database" * 9)
    unusable = {
        folder: "is a folder: --state must name a file",
        pipe: "is no regular file",
        file: "if you move it away yourself",
        file / "state.sqlite": f"{file} is no folder",
    }
    for path, words in unusable.items():
        with refuse(str(path), words), open_state(path):
            pass
        if path.exists():
            with refuse(str(path), words):
                read_runs(path)
    assert file.exists()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_CORRUPT_INDEX, "tagger did not touch it; if you move it away yourself"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "must be able to write into it and its folder"),
        (sqlite3.SQLITE_IOERR_WRITE, "its disk is full, fails"),
    ],
)
def test_an_error_of_the_database_has_its_own_cure(tmp_path: Path, code: int, words: str) -> None:
    path = tmp_path / "state.sqlite"
    error = sqlite3.OperationalError("it went wrong")
    error.sqlite_errorcode = code
    with refuse(str(path), "it went wrong", words), open_state(path):
        raise error


def test_a_full_disk_is_named_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.sqlite"
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    with pytest.raises(DiskFullError, match=str(path)), open_state(path):
        raise error

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(DiskFullError, match=str(path)), open_state(path):
        pass


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database, but long enough to be taken for one" * 100)
    with pytest.raises(StateError, match="cannot be used"), open_state(path):
        pass


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateError, match="newer tagger"), open_state(path):
        pass


@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_database_of_another_program_is_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "player.db"
    connection = sqlite3.connect(path)
    connection.executescript(f"CREATE TABLE songs (a); PRAGMA user_version = {version};")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StateError, match="another program"), open_state(path):
        pass
    assert path.read_bytes() == before


def test_a_state_file_with_two_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    with open_state(path):
        pass
    path.with_name("twin").hardlink_to(path)
    with pytest.raises(StateError, match="several hard links"), open_state(path):
        pass


def test_damaged_tags_are_told(tmp_path: Path, track: Track) -> None:
    path = tmp_path / "state.sqlite"
    with open_state(path) as state:
        learn(state, track)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE tracks SET tags = '{'")
    database.close()
    with pytest.raises(StateError, match="damaged"), open_state(path) as state:
        load(state, track)


@pytest.mark.parametrize("number", [(1 << 63) + 3, (1 << 64) - 1, 10**10 * 10**9])
def test_numbers_beyond_the_columns_of_a_database(state: State, track: Track, number: int) -> None:
    status: Any = SimpleNamespace(st_size=3, st_nlink=1, st_ino=number, st_mtime_ns=number)
    strange = Track.from_stat(Path(track.path), status)
    learn(state, strange)
    assert load(state, strange).scores == SCORES


def test_what_failed_for_one_model_is_tried_with_another(state: State, track: Track) -> None:
    silent = Failure(track, "silent", kind=SILENT)
    broken = Failure(track, "broken", kind=FailureKind.DAMAGED)
    state.save_model_failure(silent, model="m@1", windows=3)
    assert load(state, track, windows=3).failure == silent
    assert load(state, track, windows=4).failure is None
    assert load(state, track, model="m@2", windows=3).failure is None
    state.save_prediction(Prediction(track, SCORES, "m@2", 61.5), windows=3)
    assert load(state, track, windows=3).failure == silent
    state.save_failure(broken)
    assert load(state, track, model="m@2").failure == broken
    state.delete_failure(track)
    state.save_prediction(Prediction(track, SCORES, "m@1", 61.5), windows=3)
    assert load(state, track, windows=3).failure is None


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("too short: 0.40 s of sound, 1 s is needed", "too-short"),
        ("silent: nothing above -70 dBFS where it was listened to (8x)", "silent"),
        ("the file is empty", "truncated"),
        ("truncated or damaged: 1.0 s of sound where 2.0 s should be, 3 s into 9 s", "truncated"),
        ("its ID3v2 tag is cut off, or its size is wrong", "truncated"),
        ("a chunk of it is larger than the file: it was cut off, or never finished", "truncated"),
        ("its APE tag is broken: an item is longer than the tag", "damaged"),
        ("cannot be taken apart: a stream begins in the middle of it", "damaged"),
        ("it crashes the decoder (SIGSEGV)", "crashed"),
        ("cannot read the tags: broken, or not what its name says (no frame)", "wrong-content"),
        ("it holds no MPEG sound, whatever its name says", "wrong-content"),
        ("cannot be decoded (FFmpeg: Invalid data)", "cannot-decode"),
        ("changed while tagger was at work: it is no regular file any more", "changed"),
        ("the store does not take it: SlowDown", "server"),
        ("cannot be read: Could not connect", "server"),
        ("cannot read the tags: Permission denied", "no-access"),
        ("its owner and group could not be kept", "no-access"),
        ("takes more than 60 s; a larger --max-seconds with --force tries again", "over-limit"),
        ("its ID3v2.2 tag cannot be kept; a tag editor can", "cannot-tag"),
        ("not written, for it would change the sound", "cannot-tag"),
        ("half-written (No space left), its whole content is in .a", "unfinished"),
        ("nobody has said this before", "other"),
    ],
)
def test_a_failure_of_an_older_version_gets_a_kind(
    tmp_path: Path, track: Track, reason: str, kind: str
) -> None:
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript("".join(MIGRATIONS[:4]) + "PRAGMA user_version = 4;")
        values = (os.fsencode(track.path), track.size, track.mtime_ns, track.inode, reason)
        db.execute(
            "INSERT INTO tracks (id, path, size, mtime_ns, inode, failure, lasting)"
            " VALUES (1, ?, ?, ?, ?, ?, 1)",
            values,
        )
        db.execute("INSERT INTO unheard VALUES (1, 'm@1', 10, ?, 1)", (reason,))
    db.close()
    with open_state(path) as state:
        expected = Failure(track, reason, kind=FailureKind(kind))
        assert load(state, track).failure == expected
        state.delete_failure(track)
        assert load(state, track).failure == expected


def test_an_older_database_keeps_what_it_knows(tmp_path: Path, track: Track) -> None:
    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript("".join(MIGRATIONS[:2]) + "PRAGMA user_version = 2;")
        db.execute(
            "INSERT INTO tracks (id, path, size, mtime_ns, inode) VALUES (1, ?, ?, ?, ?)",
            (os.fsencode(track.path), track.size, track.mtime_ns, track.inode),
        )
        for model, windows in (("musicnn@1", 8), ("other@1", 8)):
            db.execute(
                "INSERT INTO scores VALUES (1, ?, ?, ?)", (model, windows, '[["Jazz", 0.5]]')
            )
    db.close()
    with open_state(path) as state:
        known = load(state, track, model="musicnn@1", windows=0)
        assert known.scores == (Score("Jazz", 0.5),)
        assert load(state, track, model="other@1", windows=0).scores is None
        assert load(state, track, model="other@1", windows=8).scores is not None
