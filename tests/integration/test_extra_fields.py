"""Styles, moods and voices in tags: written where the user wants them, kept, taken back."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mutagen
import pytest
from mutagen import id3

from tagger.models import find_model
from tagger.records import Attributes, ExtraField, Prediction, Score
from tagger.settings import Settings
from tagger.state import AUTO_WINDOWS, open_state
from tagger.tags import read_other_fields, read_tags
from tests.builders import audio_bytes, build_audio
from tests.front_door import Command, Scan, read_report, set_genre
from tests.replacing import make_track

Capsys = pytest.CaptureFixture[str]

ALL = ("--write", "genre,style,mood,voice")
MOODS = (Score("Happy", 0.7), Score("Calm", 0.2), Score("Tense", 0.06), Score("Sad", 0.04))
STYLES = (Score("House", 0.8), Score("Trance", 0.6), Score("Swing", 0.9))
VOICES = (Score("Instrumental", 0.9), Score("Female vocals", 0.06), Score("Male vocals", 0.04))
ENDINGS = (".mp3", ".flac", ".ogg", ".m4a", ".wma", ".wv", ".wav")

FIELDS = {
    ".mp3": ("TXXX:STYLE", "TMOO", "TXXX:VOICE", "TXXX:TAGGER_MOOD"),
    ".wav": ("TXXX:STYLE", "TMOO", "TXXX:VOICE", "TXXX:TAGGER_MOOD"),
    ".flac": ("style", "mood", "voice", "tagger_mood"),
    ".ogg": ("style", "mood", "voice", "tagger_mood"),
    ".m4a": tuple(
        f"----:com.apple.iTunes:{name}" for name in ("STYLE", "MOOD", "VOICE", "TAGGER_MOOD")
    ),
    ".wma": ("WM/Style", "WM/Mood", "VOICE", "TAGGER/MOOD"),
    ".wv": ("Style", "Mood", "Voice", "TAGGER_MOOD"),
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def build_songs(folder: Path, *endings: str) -> list[Path]:
    folder.mkdir()
    songs = [folder / f"song{ending}" for ending in endings]
    for song in songs:
        song.write_bytes(audio_bytes(song.suffix, rich=True))
    return songs


def save_predictions(
    state: Path, songs: Sequence[Path], *, score: float = 0.9, moods: Sequence[Score] = MOODS
) -> None:
    """Save that the bundled model has listened to these songs."""
    model = find_model(Settings()).identity
    attributes = Attributes(STYLES, tuple(moods), VOICES)
    with open_state(state) as opened:
        for song in songs:
            track = make_track(song)
            scores = (Score("Electronic", score), Score("Rock", 0.1))
            opened.save_tags(track, read_tags(song))
            opened.save_prediction(
                Prediction(track, scores, model, 60.0, attributes=attributes), windows=AUTO_WINDOWS
            )


def read_fields(song: Path) -> dict[str, str]:
    tags: Any = mutagen.File(song)
    return {name: _to_text(tags.get(name)) for name in FIELDS[song.suffix]}


def _to_text(value: Any) -> str:
    values = getattr(value, "text", value) or []
    texts = [bytes(each).decode() if isinstance(each, bytes) else str(each) for each in values]
    return ";".join(texts)


def look(song: Path) -> tuple[Any, ...]:
    tags = read_tags(song, extras=tuple(ExtraField))
    return tags, set(tags.raw), read_other_fields(song, tuple(ExtraField))


def set_mood(song: Path, mood: str) -> None:
    audio: Any = mutagen.File(song)
    if song.suffix == ".mp3":
        audio.tags.setall("TMOO", [id3.TMOO(encoding=3, text=[mood])])
    else:
        audio["mood"] = mood
    audio.save()


def test_each_container_gets_each_field_and_an_undo_takes_all_back(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    songs = build_songs(tmp_path / "music", *ENDINGS)
    save_predictions(state, songs)
    before = [look(song) for song in songs]
    scan = Scan(capsys, tmp_path / "music", "--state", state, *ALL, "--mood-numbers")
    assert scan.actions == {"written": len(songs)}, scan.rows
    for song in songs:
        style, mood, voice, written = read_fields(song).values()
        assert (style, mood, voice, written) == ("House;Trance", "Happy", "Instrumental", "Happy")
        extras = {each.field: each.values for each in look(song)[0].extras}
        assert extras[ExtraField.MOOD_HAPPY] == ("0.700",)
        assert extras[ExtraField.MOOD_SAD] == ("0.040",)
    again = Scan(capsys, tmp_path / "music", "--state", state, *ALL, "--mood-numbers")
    assert again.actions == {"unchanged": len(songs)}
    assert Command(capsys, "undo", "--state", state).summary["restored"] == len(songs)
    assert [look(song) for song in songs] == before


def test_a_field_of_a_person_stays_and_the_others_are_written(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    mine, theirs = build_songs(tmp_path / "music", ".flac", ".mp3")
    set_genre(mine, "Zouk")
    set_mood(theirs, "Wistful")
    save_predictions(state, [mine, theirs])
    scan = Scan(capsys, tmp_path / "music", "--state", state, *ALL)
    assert scan.actions == {"written": 2}
    assert scan.row("song.flac")["genre"] == "Zouk"
    assert scan.row("song.flac")["error"] == "written without a genre: mood, voice"
    assert scan.row("song.flac")["style"] == read_fields(mine)["style"] == ""  # House is no Zouk
    assert (read_tags(mine).genres, read_fields(mine)["mood"]) == (("Zouk",), "Happy")
    assert read_tags(theirs).genres == ("Electronic",)
    assert (read_fields(theirs)["TMOO"], read_fields(theirs)["TXXX:TAGGER_MOOD"]) == ("Wistful", "")
    appended = Scan(capsys, tmp_path / "music", "--state", state, *ALL, "--existing", "append")
    assert appended.actions == {"written": 2}
    assert read_fields(theirs)["TMOO"] == "Wistful;Happy"
    assert read_tags(mine).genres == ("Zouk", "Electronic")


def test_a_mood_that_a_person_changes_or_removes_stays_so(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    songs = build_songs(tmp_path / "music", ".flac", ".ogg")
    save_predictions(state, songs)
    Scan(capsys, tmp_path / "music", "--state", state, *ALL)
    set_mood(songs[0], "Sleepy")
    audio: Any = mutagen.File(songs[1])
    del audio["mood"]
    audio.save()
    save_predictions(state, songs, moods=(Score("Sad", 0.9), Score("Calm", 0.1)))
    Scan(capsys, tmp_path / "music", "--state", state, *ALL)
    assert [read_fields(song)["mood"] for song in songs] == ["Sleepy", ""]
    undo = Command(capsys, "undo", tmp_path / "music", "--state", state)
    assert undo.summary["refused"] == 2


def test_a_scan_for_the_genre_alone_touches_no_other_field(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    songs = build_songs(tmp_path / "music", ".flac", ".mp3")
    for song in songs:
        set_mood(song, "Wistful")
    others = [read_other_fields(song) for song in songs]
    save_predictions(state, songs)
    assert Scan(capsys, tmp_path / "music", "--state", state).actions == {"written": 2}
    for song in songs:
        set_mood(song, "Gloomy")  # after the scan: the undo of a genre does not depend on it
    assert Command(capsys, "undo", "--force", "--state", state).summary["restored"] == 2
    assert [read_tags(song).genres for song in songs] == [(), ()]
    assert {_to_text(mutagen.File(song).get("mood")) for song in songs[:1]} == {"Gloomy"}
    for song in songs:
        set_mood(song, "Wistful")
    assert [read_other_fields(song) for song in songs] == others


def test_runs_that_wrote_other_fields_are_undone_together_and_one_by_one(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    folder = tmp_path / "music"
    (song,) = build_songs(folder, ".flac")
    save_predictions(state, [song])
    before = look(song)
    Scan(capsys, folder, "--state", state)
    with_genre = look(song)
    second = Scan(capsys, folder, "--state", state, "--write", "mood")
    assert second.row("song.flac")["error"] == "written without a genre: mood"
    with_mood = look(song)
    third = Scan(capsys, folder, "--state", state, "--write", "voice")
    for run, left in ((third, with_mood), (second, with_genre)):
        options = ("--run", run.summary["run_id"], "--state", state)
        assert Command(capsys, "undo", *options).summary["restored"] == 1
        assert look(song) == left
    assert Command(capsys, "undo", folder, "--state", state).summary["restored"] == 1
    assert look(song) == before


def test_a_path_goes_back_over_runs_that_wrote_other_fields(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    folder = tmp_path / "music"
    songs = build_songs(folder, ".flac", ".mp3", ".m4a")
    set_mood(songs[1], "Wistful")
    before = [look(song) for song in songs]
    save_predictions(state, songs)
    Scan(capsys, folder, "--state", state)
    Scan(capsys, folder, "--state", state, "--write", "mood", "--existing", "replace")
    Scan(capsys, folder, "--state", state, "--write", "style,voice")
    assert Command(capsys, "undo", folder, "--state", state).summary["restored"] == 3
    assert [look(song) for song in songs] == before


@pytest.mark.parametrize(
    ("place", "genres", "field"),
    [
        ("genre", ("Electronic", "House", "Trance"), None),
        ("grouping", ("Electronic",), "grouping"),
        ("style", ("Electronic",), "style"),
    ],
)
def test_styles_go_where_the_user_wants_them(
    tmp_path: Path, capsys: Capsys, place: str, genres: tuple[str, ...], field: str | None
) -> None:
    state = tmp_path / "state.sqlite"
    (song,) = build_songs(tmp_path / "music", ".flac")
    save_predictions(state, [song])
    choice = ("--write", "genre,style", "--styles", place)
    Scan(capsys, tmp_path / "music", "--state", state, *choice)
    tags: Any = mutagen.File(song)
    assert read_tags(song).genres == genres
    assert {name for name in ("style", "grouping") if name in tags} == {field} - {None}
    assert not field or tags[field] == ["House", "Trance"]


@pytest.mark.parametrize(
    ("changes", "style"),
    [
        ({"genre": "Rock"}, ""),
        ({"genre": "Rock", "style": "Grunge"}, "Grunge"),
        ({"genre": "electronic;Pop"}, "House;Trance"),
        ({}, "House;Trance"),
    ],
)
def test_a_style_goes_with_its_genre(
    tmp_path: Path, state: Path, capsys: Capsys, changes: dict[str, str], style: str
) -> None:
    (song,) = build_songs(tmp_path / "music", ".flac")
    save_predictions(state, [song])
    dry = Scan(capsys, tmp_path / "music", "--state", state, "-n", *ALL)
    edited = tmp_path / "edited.csv"
    write_rows(edited, [dry.rows[0] | changes])
    applied = Command(capsys, "apply", edited, "--state", state, *ALL)
    assert applied.summary["written"] == 1
    assert read_fields(song)["style"] == style
    assert [row["style"] for row in read_report(applied.summary["report"])] == [style]
    assert read_tags(song).genres == tuple(changes.get("genre", "Electronic").split(";"))


def test_a_style_goes_with_its_genre_also_where_the_row_of_the_dry_run_is_gone(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    (song,) = build_songs(tmp_path / "music", ".flac")
    save_predictions(state, [song])
    dry = Scan(capsys, tmp_path / "music", "--state", state, "-n", *ALL)
    Scan(capsys, tmp_path / "music", "--state", state, "-n", "--top-k", "1")
    edited = tmp_path / "edited.csv"
    write_rows(edited, [dry.rows[0] | {"genre": "Rock"}])
    assert Command(capsys, "apply", edited, "--state", state, *ALL).summary["written"] == 1
    assert (read_tags(song).genres, read_fields(song)["style"]) == (("Rock",), "")


@pytest.mark.parametrize(
    ("genre", "score_and_write", "style"),
    [
        ("", (0.9, "genre,style"), "House;Trance"),
        ("", (0.3, "genre,style"), ""),  # the genre is not written
        ("", (0.9, "style"), "House;Trance"),
        ("", (0.3, "style"), ""),
        ("Tech House", (0.9, "genre,style"), "House;Trance"),  # it is Electronic
        ("Electronica/Dance", (0.3, "genre,style"), "House;Trance"),
        ("Zouk", (0.9, "genre,style"), ""),
        ("Other", (0.9, "genre,style"), "House;Trance"),
    ],
)
def test_a_style_is_written_only_under_its_genre(
    tmp_path: Path, capsys: Capsys, genre: str, score_and_write: tuple[float, str], style: str
) -> None:
    score, write = score_and_write
    state = tmp_path / "state.sqlite"
    (song,) = build_songs(tmp_path / "music", ".flac")
    if genre:
        set_genre(song, genre)
    save_predictions(state, [song], score=score)
    dry = Scan(capsys, tmp_path / "music", "--state", state, "-n", "--write", write)
    assert dry.row(song.name)["style"] == ("" if dry.rows[0]["action"] == "kept" else style)
    assert Scan(capsys, tmp_path / "music", "--state", state, "--write", write).code == 0
    assert read_fields(song)["style"] == style


def test_a_style_can_stand_in_the_place_of_its_genre(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    (song,) = build_songs(tmp_path / "music", ".mp3")
    save_predictions(state, [song])
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "default"\nparents = "narrow"')
    options = ("--state", state, "--write", "genre,style", "--styles", "genre")
    scan = Scan(capsys, tmp_path / "music", *options, "--vocabulary", mine)
    assert (scan.row(song.name)["genre"], scan.row(song.name)["score"]) == (
        "House;Trance",
        "0.9000",
    )
    assert read_tags(song).genres == read_tags(song).written == ("House", "Trance")
    assert Scan(capsys, tmp_path / "music", *options, "--vocabulary", mine).actions == {
        "unchanged": 1
    }
    again = Command(capsys, "normalize", song, "--state", state, "--vocabulary", mine)
    assert again.summary["kept"] == 1


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_an_edited_dry_run_is_applied_and_the_edited_mood_is_the_persons(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    songs = build_songs(tmp_path / "music", ".flac", ".ogg")
    save_predictions(state, songs)
    report = tmp_path / "report.csv"
    Scan(capsys, tmp_path / "music", "--state", state, "-n", "--report", report, *ALL)
    rows = read_report(report)
    assert {(row["style"], row["mood"], row["voice"]) for row in rows} == {
        ("House;Trance", "Happy", "Instrumental")
    }
    rows[0]["mood"] = "Dreamy"
    edited = tmp_path / "edited.csv"
    write_rows(edited, rows)
    applied = Command(capsys, "apply", edited, "--state", state, *ALL)
    assert applied.summary["written"] == 2
    fields = {song.name: read_fields(song) for song in songs}
    changed, same = (fields[Path(row["path"]).name] for row in rows)
    assert (changed["mood"], changed["tagger_mood"]) == ("Dreamy", "")
    assert (same["mood"], same["tagger_mood"]) == ("Happy", "Happy")


def test_a_low_score_keeps_the_genre_out_but_not_the_mood(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    (song,) = build_songs(tmp_path / "music", ".flac")
    save_predictions(state, [song], score=0.3)
    dry = Scan(capsys, tmp_path / "music", "--state", state, "-n", "--write", "genre,mood")
    assert dry.actions == {"would-write": 1}
    applied = Command(
        capsys, "apply", dry.summary["report"], "--state", state, "--write", "genre,mood"
    )
    assert applied.summary["written"] == 1
    assert (read_tags(song).genres, read_fields(song)["mood"]) == ((), "Happy")


def test_the_network_gives_what_is_written(tmp_path: Path, state: Path, capsys: Capsys) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    song = build_audio(folder / "song.flac", seconds=6)
    copy = shutil.copy(song, tmp_path / "copy.flac")
    scan = Scan(capsys, folder, "--state", state, "--min-score", "0", "--mood-numbers", *ALL)
    tags = read_tags(song, extras=tuple(ExtraField))
    numbers = [each.values[0] for each in tags.extras if each.field.startswith("mood-")]
    assert len(numbers) == 4
    assert sum(map(float, numbers)) == pytest.approx(1, abs=0.002)
    known = Command(capsys, "classify", "--moods", copy)
    assert scan.row("song.flac")["mood"] in {
        "",
        *(each["label"] for each in known.summary[0]["moods"]),
    }


def test_wrong_fields_are_refused(capsys: Capsys) -> None:
    assert Command(capsys, "scan", ".", "--write", "genre,tempo").code == 2
    assert (
        "--write: must be some of genre, style, mood, voice"
        in Command(capsys, "scan", ".", "--write", "tempo").err
    )


def test_a_model_that_cannot_fill_a_field_is_refused(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "music").mkdir()
    options = ("-m", "musicnn", "--write", "genre,style,mood", "--mood-numbers")
    scan = Command(capsys, "scan", tmp_path / "music", *options)
    assert scan.code == 2
    assert (
        "--write style, --write mood, --mood-numbers: the model musicnn knows nothing" in scan.err
    )
    assert Command(capsys, "scan", tmp_path / "music", "-m", "musicnn").code == 0


def test_an_apply_without_the_fields_marks_no_track_as_unwanted(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    (song,) = build_songs(tmp_path / "music", ".flac")
    save_predictions(state, [song], score=0.3)
    dry = Scan(capsys, tmp_path / "music", "--state", state, "-n", "--write", "genre,mood")
    assert dry.actions == {"would-write": 1}
    assert Command(capsys, "apply", dry.summary["report"], "--state", state).code == 0
    scan = Scan(capsys, tmp_path / "music", "--state", state, "--min-score", "0.2")
    assert (scan.actions, read_tags(song).genres) == ({"written": 1}, ("Electronic",))


def test_the_undo_of_a_mood_leaves_the_genre_to_later_scans(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    (song,) = build_songs(tmp_path / "music", ".flac")
    save_predictions(state, [song])
    Scan(capsys, tmp_path / "music", "--state", state, "--write", "mood")
    assert Command(capsys, "undo", "--state", state).summary["restored"] == 1
    assert Scan(capsys, tmp_path / "music", "--state", state).actions == {"written": 1}


def test_a_mood_does_not_bring_back_a_genre_that_was_undone(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    (song,) = build_songs(tmp_path / "music", ".flac")
    save_predictions(state, [song])
    folder = tmp_path / "music"
    dry = Scan(capsys, folder, "--state", state, "-n", *ALL)
    Scan(capsys, folder, "--state", state)
    Command(capsys, "undo", "--state", state)
    mood = ("--state", state, "--write", "mood")
    assert Command(capsys, "apply", dry.summary["report"], *mood).summary["written"] == 1
    assert Scan(capsys, folder, "--state", state).row("song.flac")["kind"] == "undone"


def test_a_kept_genre_is_not_reported_as_written_by_apply(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    (song,) = build_songs(tmp_path / "music", ".flac")
    set_genre(song, "Jazz")
    save_predictions(state, [song])
    options = ("--state", state, "--write", "genre,mood")
    dry = Scan(capsys, tmp_path / "music", "-n", "--existing", "replace", *options)
    applied = Command(capsys, "apply", dry.summary["report"], *options)
    (row,) = read_report(applied.summary["report"])
    assert (row["action"], row["genre"]) == ("written", "Jazz")
    assert (read_tags(song).genres, read_fields(song)["mood"]) == (("Jazz",), "Happy")


def test_a_filled_gap_gets_the_genre_alone(tmp_path: Path, state: Path, capsys: Capsys) -> None:
    (song,) = build_songs(tmp_path / "music", ".flac")
    save_predictions(state, [song])
    Scan(capsys, tmp_path / "music", "--state", state, "-n", *ALL, "--mood-numbers")
    Command(capsys, "normalize", "--fill", tmp_path / "music", "--state", state)
    assert read_tags(song).genres == ("Electronic",)
    assert set(read_fields(song).values()) == {""}


def test_a_wav_with_a_persons_mood_alone_is_written(
    tmp_path: Path, state: Path, capsys: Capsys
) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    song = build_audio(folder / "song.wav", seconds=1)
    audio: Any = mutagen.File(song)
    audio.add_tags()
    audio.tags.add(id3.TMOO(encoding=3, text=["Wistful"]))
    audio.save()
    save_predictions(state, [song])
    assert Scan(capsys, folder, "--state", state, *ALL).actions == {"written": 1}
    assert (read_tags(song).genres, read_fields(song)["TMOO"]) == (("Electronic",), "Wistful")
