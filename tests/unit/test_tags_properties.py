"""Any content of a tag, any genre, any container: ours is written, theirs stays, undo undoes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutagen import apev2, asf, id3, mp4

from tagger.errors import TagError
from tagger.records import MOOD_NUMBERS, ExtraField, ExtraTag, Tags
from tagger.tags import read_other_fields, read_tags, write_raw, write_tags
from tests.builders import EACH_ENDING, ENDINGS, audio_bytes, open_tags

Edit = Callable[[Any], None]
"""What another program does to the tags of a file that mutagen has opened."""

FRAMES: Any = id3  # mutagen has no types
APE: Any = apev2
ASF: Any = asf
MP4: Any = mp4

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
text = words.filter(str.strip)
texts = st.lists(text, min_size=1, max_size=3)
blob = st.binary(max_size=200)
key = st.text("abcXYZ _-", min_size=2, max_size=8).map(lambda name: f"x{name}x")
genre_name = st.sampled_from(["genre", "GENRE", "Genre", "gEnRe"])
encoding = st.sampled_from([0, 1, 2, 3])


def added(frames: list[Any]) -> Edit:
    def edit(audio: Any) -> None:
        for frame in frames:
            audio.tags.add(frame)

    return edit


def put(items: list[tuple[str, Any]]) -> Edit:
    def edit(audio: Any) -> None:
        for name, value in items:
            audio.tags[name] = value

    return edit


def latin(value: list[str], encoding: int) -> list[str]:
    return (
        [part.encode("latin-1", "replace").decode("latin-1") for part in value]
        if not encoding
        else value
    )


id3_frames = st.lists(
    st.one_of(
        st.builds(lambda e, t: FRAMES.TCON(encoding=e, text=latin(t, e)), encoding, texts),
        st.builds(lambda e, t: FRAMES.TPE1(encoding=e, text=latin(t, e)), encoding, texts),
        st.builds(lambda d, t: FRAMES.TXXX(encoding=1, desc=d, text=t), words, texts),
        st.builds(lambda t: FRAMES.TXXX(encoding=3, desc="TAGGER_MODEL", text=t), texts),
        st.builds(lambda d, t: FRAMES.COMM(encoding=1, lang="eng", desc=d, text=t), words, texts),
        st.builds(lambda t: FRAMES.USLT(encoding=3, lang="deu", desc="", text=t), text),
        st.builds(lambda d: FRAMES.APIC(encoding=0, mime="image/png", type=3, data=d), blob),
        st.builds(lambda d: FRAMES.PRIV(owner="x", data=d), blob),
        st.builds(
            lambda d: FRAMES.GEOB(encoding=0, mime="a", filename="b", desc="c", data=d), blob
        ),
        st.builds(lambda n: FRAMES.POPM(email="a", rating=n, count=n), st.integers(0, 255)),
    ),
    max_size=6,
).map(added)

vorbis_items = st.lists(
    st.tuples(st.one_of(key, genre_name, st.just("TAGGER_GENRE"), st.just("LYRICS")), texts),
    max_size=6,
).map(put)

ape_items = st.lists(
    st.one_of(
        st.tuples(st.one_of(key, genre_name, st.just("TAGGER_SCORES")), texts),
        st.tuples(key, blob.map(lambda data: APE.APEValue(data, APE.BINARY))),
        st.tuples(key, text.map(lambda link: APE.APEValue(link, APE.EXTERNAL))),
        st.tuples(st.just("Cover Art (Front)"), blob.map(lambda data: APE.APEValue(data, 1))),
    ),
    max_size=6,
).map(put)

freeform = blob.map(lambda data: [MP4.MP4FreeForm(data, MP4.AtomDataType.IMPLICIT)])
mp4_items = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["\xa9nam", "\xa9gen", "\xa9lyr", "\xa9cmt", "\xa9ART"]), texts),
        st.tuples(key.map("----:com.apple.iTunes:{}".format), freeform),
        st.tuples(st.just("----:com.apple.iTunes:TAGGER_MODEL"), freeform),
        st.tuples(st.just("covr"), blob.map(lambda data: [MP4.MP4Cover(data, 14)])),
        st.tuples(
            st.just("trkn"), st.tuples(st.integers(0, 999), st.integers(0, 999)).map(lambda n: [n])
        ),
        st.tuples(st.just("tmpo"), st.integers(-9, 30_000).map(lambda n: [n])),
        st.tuples(st.just("cpil"), st.booleans()),
    ),
    max_size=6,
).map(put)

asf_items = st.lists(
    st.one_of(
        st.tuples(st.one_of(key, st.sampled_from(["WM/Genre", "Title", "TAGGER/GENRE"])), texts),
        st.tuples(key, blob.map(ASF.ASFByteArrayAttribute)),
        st.tuples(key, st.booleans().map(ASF.ASFBoolAttribute)),
        st.tuples(key, st.integers(0, 2**64 - 1).map(ASF.ASFQWordAttribute)),
        st.tuples(key, text.map(lambda t: ASF.ASFUnicodeAttribute(t, language=1, stream=2))),
        st.tuples(st.just("WM/Picture"), blob.map(ASF.ASFByteArrayAttribute)),
    ),
    max_size=6,
).map(put)

EDITS: dict[str, st.SearchStrategy[Edit]] = {
    **dict.fromkeys(
        (".mp3", ".mp2", ".aac", ".wav", ".wave", ".aif", ".aiff", ".dsf", ".tta"), id3_frames
    ),
    **dict.fromkeys((".flac", ".ogg", ".oga", ".opus", ".spx"), vorbis_items),
    **dict.fromkeys((".ape", ".wv", ".mpc"), ape_items),
    **dict.fromkeys((".m4a", ".m4b", ".m4r", ".mp4"), mp4_items),
    ".wma": asf_items,
}


def make_extras(values: dict[ExtraField, list[str]]) -> tuple[ExtraTag, ...]:
    numbers = MOOD_NUMBERS.values()
    return tuple(
        ExtraTag(each, tuple(values[each]), () if each in numbers else tuple(values[each]))
        for each in ExtraField
        if each in values
    )


tags_to_write = st.builds(
    lambda genres, scores, extras: Tags(
        tuple(genres), tuple(genres), scores, "model", make_extras(extras)
    ),
    texts,
    words,
    st.dictionaries(st.sampled_from(ExtraField), texts),
)
earlier_runs = st.one_of(st.none(), st.just(Tags(("Old",), ("Old",), "Old=0.900", "old")))


def prepared(path: Path, edit: Edit, *, rich: bool, earlier: Tags | None) -> None:
    """Write a file that other programs edited, and perhaps tagger before them."""
    path.write_bytes(audio_bytes(path.suffix, rich=rich))
    if earlier:
        write_tags(path, earlier)
    audio = open_tags(path)
    edit(audio)
    audio.save()


def test_every_kind_has_its_content() -> None:
    assert set(EDITS) == set(ENDINGS)


@pytest.mark.parametrize("ending", EACH_ENDING)
def test_ours_is_written_theirs_stays_and_undo_undoes(
    tmp_path_factory: pytest.TempPathFactory, ending: str
) -> None:
    path = tmp_path_factory.mktemp("any") / f"song{ending}"

    @settings(derandomize=True, database=None)
    @given(
        edit=EDITS[ending],
        rich=st.booleans(),
        earlier=earlier_runs,
        wanted=tags_to_write,
    )
    def check(*, edit: Edit, rich: bool, earlier: Tags | None, wanted: Tags) -> None:
        prepared(path, edit, rich=rich, earlier=earlier)
        extras = wanted.extra_fields
        data, before = path.read_bytes(), read_tags(path, extras=extras)
        others = read_other_fields(path, extras)
        try:
            write_tags(path, wanted)
        except TagError:  # text that the tag would give back as another
            assert path.read_bytes() == data
            return
        assert read_tags(path, extras=extras) == wanted
        assert read_other_fields(path, extras) == others
        write_raw(path, before)
        after = read_tags(path, extras=extras)
        assert (after, set(after.raw)) == (before, set(before.raw))
        assert read_other_fields(path, extras) == others

    check()
