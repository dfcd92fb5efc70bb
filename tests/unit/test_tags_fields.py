"""The tags of real files in every container, read back by others than the code that wrote them."""

import random
import struct
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from mutagen import apev2, flac, id3, mp4, ogg

from tagger.errors import AccessError, TagError, TrackError
from tagger.records import Tags
from tagger.tags import EXTENSIONS, read_other_fields, read_tags, write_raw, write_tags
from tagger.writing.replace import find_changed_fields
from tests.builders import (
    EACH_ENDING,
    ENDINGS,
    PNG,
    add_genre,
    audio_bytes,
    build_audio,
    id3_frames,
    open_tags,
    write_empty,
    write_text,
)

ID3: Any = id3.ID3  # mutagen has no types
TDRC: Any = id3.TDRC
APEV2: Any = apev2.APEv2
MP4: Any = mp4.MP4
FLAC: Any = flac.FLAC
OGG_PAGE: Any = ogg.OggPage

TAGS = Tags(
    genres=("Hip-Hop", "Música & Söul"),
    written=("Hip-Hop", "Música & Söul"),
    scores="Hip-Hop=0.832;Electronic=0.051",
    model="musicnn",
)
ONE = Tags(("Jazz",), ("Jazz",), "Jazz=0.9", "musicnn")
ID3_FIELDS = ("TCON", "TXXX:TAGGER_SCORES", "TXXX:TAGGER_MODEL", "TXXX:TAGGER_GENRE")
VORBIS_FIELDS = ("genre", "tagger_scores", "tagger_model", "tagger_genre")
STEM = "----:com.apple.iTunes:TAGGER_"
MP4_FIELDS = ("©gen", f"{STEM}SCORES", f"{STEM}MODEL", f"{STEM}GENRE")
ASF_FIELDS = ("WM/Genre", "TAGGER/SCORES", "TAGGER/MODEL", "TAGGER/GENRE")
APE_FIELDS = ("Genre", "TAGGER_SCORES", "TAGGER_MODEL", "TAGGER_GENRE")
WRITTEN_FIELDS = {
    **dict.fromkeys(
        (".mp3", ".mp2", ".aac", ".wav", ".wave", ".aif", ".aiff", ".dsf", ".tta"), ID3_FIELDS
    ),
    **dict.fromkeys((".flac", ".ogg", ".oga", ".opus", ".spx"), VORBIS_FIELDS),
    **dict.fromkeys((".m4a", ".m4b", ".m4r", ".mp4"), MP4_FIELDS),
    ".wma": ASF_FIELDS,
    **dict.fromkeys((".ape", ".wv", ".mpc"), APE_FIELDS),
}
"""The table of docs/files.md: genre, scores, model, what tagger wrote."""
UNSEEN_BY_FFMPEG = {".tta"}
"""ffmpeg drops the ID3 tag of a TTA file that has an APE tag too, as ffmpeg's own files have."""

each_kind = pytest.mark.parametrize("ending", EACH_ENDING)
bare_or_rich = pytest.mark.parametrize("rich", [False, True], ids=["bare", "rich"])


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def make_song(ending: str, *, rich: bool = False) -> Path:
        path = tmp_path / f"song{ending}"
        path.write_bytes(audio_bytes(ending, rich=rich))
        return path

    return make_song


def packets(path: Path) -> str:
    """Return a digest of all packets of sound, without the tags that the ape demuxer adds."""
    digest = sha256()
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            digest.update(bytes(packet)[:3000] if path.suffix == ".ape" else bytes(packet))
    return digest.hexdigest()


def seen_by_ffmpeg(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {**container.metadata, **container.streams.audio[0].metadata}


def texts(value: Any) -> list[str]:
    values = getattr(value, "text", value)
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def test_every_kind_of_the_contract_is_looked_for() -> None:
    assert set(WRITTEN_FIELDS) == set(ENDINGS)
    assert set(ENDINGS) <= EXTENSIONS


@each_kind
@bare_or_rich
def test_the_fields_land_where_the_contract_says(
    make: Callable[..., Path], ending: str, *, rich: bool
) -> None:
    path = make(ending, rich=rich)
    write_tags(path, TAGS)
    found = open_tags(path).tags
    genre, scores, model, written = WRITTEN_FIELDS[ending]
    assert texts(found[genre]) == list(TAGS.genres)
    assert texts(found[written]) == list(TAGS.written)
    assert texts(found[scores]) == [TAGS.scores]
    assert texts(found[model]) == [TAGS.model]
    assert read_tags(path) == TAGS


@each_kind
@bare_or_rich
def test_nothing_else_changes(make: Callable[..., Path], ending: str, *, rich: bool) -> None:
    path = make(ending, rich=rich)
    others, sound = read_other_fields(path), packets(path)
    fields = {name: repr(value) for name, value in dict(open_tags(path).tags).items()}
    metadata = seen_by_ffmpeg(path)
    write_tags(path, TAGS)
    assert read_other_fields(path) == others
    assert packets(path) == sound
    now = {name: repr(value) for name, value in dict(open_tags(path).tags).items()}
    assert {name: now[name] for name in fields} == fields
    assert now.keys() - fields.keys() == set(WRITTEN_FIELDS[ending])
    ours = {name for name in seen_by_ffmpeg(path) if "TAGGER" in name or name.lower() == "genre"}
    assert {k: v for k, v in seen_by_ffmpeg(path).items() if k not in ours} == metadata


@each_kind
def test_ffmpeg_sees_the_genre(make: Callable[..., Path], ending: str) -> None:
    path = make(ending, rich=True)
    write_tags(path, ONE)
    seen = {name.lower(): value for name, value in seen_by_ffmpeg(path).items()}
    if ending in UNSEEN_BY_FFMPEG:
        assert "genre" not in seen
    else:
        assert seen["genre"] == "Jazz"


@each_kind
@bare_or_rich
def test_a_second_write_replaces_and_an_empty_one_removes(
    make: Callable[..., Path], ending: str, *, rich: bool
) -> None:
    path = make(ending, rich=rich)
    others = read_other_fields(path)
    write_tags(path, TAGS)
    write_tags(path, ONE)
    assert read_tags(path) == ONE
    write_tags(path, Tags())
    assert read_tags(path) == Tags()
    assert read_other_fields(path) == others


@each_kind
def test_the_raw_fields_come_back_exactly(make: Callable[..., Path], ending: str) -> None:
    path = add_genre(make(ending, rich=True), "Mine", "Yours")
    before, others, size = read_tags(path), read_other_fields(path), path.stat().st_size
    assert before.genres == ("Mine", "Yours")
    write_tags(path, TAGS)
    write_raw(path, before)
    assert read_tags(path).raw == before.raw
    assert read_tags(path) == before
    assert read_other_fields(path) == others
    assert abs(path.stat().st_size - size) < 4096


@each_kind
def test_the_file_hardly_grows(make: Callable[..., Path], ending: str) -> None:
    path = make(ending)
    size = path.stat().st_size
    for _ in range(5):
        write_tags(path, TAGS)
    assert path.stat().st_size - size < 8192


@given(
    genres=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60),
        min_size=1,
        max_size=3,
        unique=True,
    ),
    ending=st.sampled_from([".mp3", ".flac", ".opus", ".m4a", ".wma", ".wv", ".wav", ".aiff"]),
)
def test_any_genre_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, genres: list[str], ending: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(audio_bytes(ending, rich=True))
    others = read_other_fields(path)
    wanted = Tags(tuple(genres), tuple(genres), "x=1", "m")
    try:
        write_tags(path, wanted)
    except TagError:
        numbers = [text.isdecimal() or text.startswith("(") or text in "RXCR" for text in genres]
        blank = [not text.strip() for text in genres]
        assert any(blank) or (ending in (".mp3", ".wav", ".aiff") and any(numbers))
    else:
        assert read_tags(path) == wanted
    assert read_other_fields(path) == others


@pytest.mark.parametrize("genre", ["", "a\0b", "\udcff"])
@pytest.mark.parametrize("ending", [".flac", ".mp3"])
def test_text_that_no_tag_can_hold_is_refused(
    make: Callable[..., Path], ending: str, genre: str
) -> None:
    path = make(ending)
    with pytest.raises(TagError):
        write_tags(path, Tags((genre,)))
    assert path.read_bytes() == audio_bytes(ending)


def id3_tag(version: int, *frames: bytes, flags: int = 0, padding: int = 0) -> bytes:
    body = b"".join(frames) + bytes(padding)
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3" + bytes([version, 0, flags]) + size + body


def frame(name: bytes, content: bytes, *, flags: bytes = b"\0\0") -> bytes:
    if len(name) == 3:
        return name + len(content).to_bytes(3, "big") + content
    return name + len(content).to_bytes(4, "big") + flags + content


def bare_mp3() -> bytes:
    """Return an MP3 without any tag."""
    data = audio_bytes(".mp3")
    return data[10 + int.from_bytes(data[8:10], "big") :]


@pytest.mark.parametrize("version", [3, 4])
def test_id3_keeps_its_version(tmp_path: Path, version: int) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(bare_mp3())
    tags = ID3()
    for each in id3_frames():
        tags.add(each)
    tags.add(TDRC(encoding=0, text="1999-12-31"))
    if version == 3:
        tags.update_to_v23()
    tags.save(path, v2_version=version)
    before = path.read_bytes()
    write_tags(path, TAGS)
    assert path.read_bytes()[:5] == b"ID3" + bytes([version, 0])
    found = ID3(path, translate=False)
    assert found.version == (2, version, 0)
    assert found["TCON"].text == list(TAGS.genres)
    assert (b"TYER" in before) == (b"TYER" in path.read_bytes()) == (version == 3)
    assert read_tags(path) == TAGS


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        (b"\x0017", ("Rock",)),
        (b"\x00(17)", ("Rock",)),
        (b"\x00(17)Rock", ("Rock",)),
        (b"\x00(17)(8)Fusion", ("Rock", "Jazz", "Fusion")),
        (b"\x00(RX)", ("Remix",)),
        (b"\x00((Live)", ("(Live)",)),
        (b"\x001984", ("1984",)),
        (b"\x0017\x00Own", ("Rock", "Own")),
        (b"\x01\xff\xfeR\0o\0c\0k\0\0\0\xff\xfeP\0o\0p\0\0\0", ("Rock", "Pop")),
        (b"\x03Rock\x00Pop\x00", ("Rock", "Pop")),
    ],
)
def test_genre_numbers_become_names(tmp_path: Path, stored: bytes, names: tuple[str, ...]) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(id3_tag(3, frame(b"TCON", stored)) + bare_mp3())
    assert read_tags(path).genres == names


V1 = b"TAG" + b"".join(
    text.ljust(30, b"\0") for text in (b"Old Title", b"Old Artist", b"Old Album")
)
V1 += b"1999" + b"old comment".ljust(28, b"\0") + b"\0\x07" + bytes([17])


def test_id3v1_stays_and_its_title_does_not_vanish(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(bare_mp3() + V1)
    before, others, metadata = read_tags(path), read_other_fields(path), seen_by_ffmpeg(path)
    assert before.genres == ("Rock",)
    write_tags(path, ONE)
    assert path.read_bytes().endswith(bare_mp3() + V1)
    assert read_tags(path) == ONE
    assert find_changed_fields(others, read_other_fields(path)) == []
    seen = seen_by_ffmpeg(path)
    assert {seen[name] for name in ("title", "artist", "album")} == {
        "Old Title",
        "Old Artist",
        "Old Album",
    }
    assert metadata.keys() - {"comment"} <= seen.keys()


def test_what_nobody_can_parse_in_an_id3_tag_stays(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    theirs = (
        frame(b"APIC", b"broken"),
        frame(b"TIT2", b"\x07no such encoding"),
        frame(b"TALB", b"\x00\x00\x00\x05xx", flags=b"\x00\x80"),  # said to be compressed
        frame(b"TPE1", b"\0first"),
        frame(b"TPE1", b"\0second of a kind"),
        frame(b"TXXX", b"\x01\xff\xfeA"),
        frame(b"TXXX", b"\x05no such encoding"),
        frame(b"TXXX", b"\0Label\0One"),
        frame(b"TXXX", b"\0Label\0Two"),
        frame(b"PRIV", b"a\0\xff\x00\xff\xe0"),
    )
    path.write_bytes(id3_tag(3, *theirs, frame(b"TCON", b"\0Pop")) + bare_mp3())
    before = read_tags(path)
    write_tags(path, TAGS)
    data = path.read_bytes()
    assert b"".join(theirs) in data
    assert read_tags(path) == TAGS
    write_raw(path, before)
    assert read_tags(path) == before


def test_the_genre_of_id3v2_2_counts_and_the_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    theirs = frame(b"TT2", b"\0Title"), frame(b"TCO", b"\0(17)")
    path.write_bytes(id3_tag(2, *theirs, padding=20) + bare_mp3())
    data = path.read_bytes()
    assert read_tags(path).genres == ("Rock",)
    with pytest.raises(TagError, match=r"ID3v2\.2"):
        write_tags(path, TAGS)
    assert path.read_bytes() == data


def test_the_genre_of_an_ape_tag_on_an_mp3_counts_until_id3_has_one(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(bare_mp3())
    tags = APEV2()
    tags["Genre"], tags["Title"] = ["Theirs", "Too"], "Name"
    tags.save(path)
    data = path.read_bytes()
    assert read_tags(path).genres == ("Theirs", "Too")
    write_tags(path, ONE)
    assert path.read_bytes().endswith(data)
    assert read_tags(path) == ONE


@pytest.mark.parametrize("flags", [b"\x00\x80", b"\x00\x00"])
def test_a_frame_that_unfolds_to_gigabytes_is_never_unfolded(tmp_path: Path, flags: bytes) -> None:
    path = tmp_path / "song.mp3"
    bomb = frame(b"TXXX", struct.pack(">I", 1 << 31) + zlib.compress(bytes(10_000)), flags=flags)
    path.write_bytes(id3_tag(3, bomb) + bare_mp3())
    write_tags(path, ONE)
    assert bomb in path.read_bytes()
    assert read_tags(path) == ONE


def test_an_unsynchronised_tag_reads_the_same_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    private = frame(b"PRIV", b"a\0\xff\xe0\xff\x00x")
    body = private + frame(b"TCON", b"\x01\xff\xfeP\0o\0p\0")
    encoded = body.replace(b"\xff\x00", b"\xff\x00\x00").replace(b"\xff\xe0", b"\xff\x00\xe0")
    encoded = encoded.replace(b"\xff\xfe", b"\xff\x00\xfe")
    path.write_bytes(id3_tag(3, encoded, flags=0x80) + bare_mp3())
    assert read_tags(path).genres == ("Pop",)
    others = read_other_fields(path)
    write_tags(path, TAGS)
    assert read_other_fields(path) == others
    assert private in path.read_bytes()


def test_the_wrong_sizes_of_old_itunes_are_understood_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    long = frame(b"COMM", b"\0eng\0" + b"c" * 200), frame(b"TIT2", b"\0Title")
    path.write_bytes(id3_tag(4, *long, frame(b"TCON", b"\0Pop")) + bare_mp3())
    assert read_tags(path).genres == ("Pop",)
    scores = ";".join(f"Genre {n}=0.1" for n in range(20))
    wanted = Tags(("Jazz",), ("Jazz",), scores, "musicnn")
    write_tags(path, wanted)
    found = ID3(path)
    assert found["COMM::eng"].text == ["c" * 200]
    assert found["TIT2"].text == ["Title"]
    assert found["TXXX:TAGGER_SCORES"].text == [scores]
    assert read_tags(path) == wanted


def test_the_genre_of_a_wav_stands_in_info_too(make: Callable[..., Path]) -> None:
    path = make(".wav")
    write_tags(path, TAGS)
    with soundfile.SoundFile(path) as file:
        assert file.copy_metadata()["genre"] == "Hip-Hop; Música & Söul"


def test_a_genre_in_info_alone_counts_and_comes_back(make: Callable[..., Path]) -> None:
    path = make(".wav")
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        file.genre = "Mine; Yours"
        file.write(np.zeros(100))
    before = read_tags(path)
    assert before.genres == ("Mine", "Yours")
    write_tags(path, ONE)
    assert read_tags(path) == ONE
    write_raw(path, before)
    assert read_tags(path) == before


def test_an_edit_of_info_alone_is_noticed(make: Callable[..., Path]) -> None:
    path = make(".wav")
    write_tags(path, ONE)
    path.write_bytes(path.read_bytes().replace(b"IGNR\x05\0\0\0Jazz\0", b"IGNR\x05\0\0\0Funk\0"))
    assert read_tags(path).genres == ("Jazz", "Funk")


def test_an_mp4_with_a_number_gets_a_name_instead(make: Callable[..., Path]) -> None:
    path = make(".m4a")
    tags = MP4(path)
    tags["©nam"] = ["12"]
    tags.save()
    data = path.read_bytes()
    old = struct.pack(">I4sI4sII", 26, b"\xa9nam", 18, b"data", 1, 0) + b"12"
    number = struct.pack(">I4sI4sIIH", 26, b"gnre", 18, b"data", 0, 0, 18)
    path.write_bytes(data.replace(old, number))
    before = read_tags(path)
    assert before.genres == ("Rock",)
    write_tags(path, ONE)
    assert read_tags(path) == ONE
    assert b"gnre" not in path.read_bytes()
    write_raw(path, before)
    assert read_tags(path) == before


@pytest.mark.parametrize("codec", ["aac", "alac"])
def test_the_sound_of_an_mp4_is_found_after_its_head_grew(tmp_path: Path, codec: str) -> None:
    path = build_audio(tmp_path / "tail.m4a", seconds=0.5, codec=codec)
    front = tmp_path / "front.m4a"
    with (
        av.open(str(path)) as source,
        av.open(str(front), "w", format="ipod", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    data = front.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    before, others = packets(front), read_other_fields(front)
    write_tags(front, TAGS)
    assert front.stat().st_size > len(data)
    assert packets(front) == before
    assert read_other_fields(front) == others


def test_comments_that_need_more_ogg_pages_move_the_sound(make: Callable[..., Path]) -> None:
    path = make(".ogg", rich=True)
    before, others = packets(path), read_other_fields(path)
    write_tags(path, Tags(("Jazz",), ("Jazz",), "x" * 300_000, "musicnn"))
    assert packets(path) == before
    assert read_other_fields(path) == others
    with path.open("rb") as file:
        pages = []
        while file.tell() < path.stat().st_size:
            page = OGG_PAGE(file)
            pages.append(page.sequence)
    assert pages == list(range(len(pages)))
    assert len(pages) > 5


def flac_parts() -> tuple[list[tuple[int, bytes]], bytes]:
    data, at = audio_bytes(".flac", rich=True), 4
    blocks: list[tuple[int, bytes]] = []
    while not blocks or not blocks[-1][0] & 0x80:
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        blocks.append((data[at], data[at + 4 : at + 4 + size]))
        at += 4 + size
    return [(kind & 0x7F, content) for kind, content in blocks], data[at:]


def flac_file(blocks: list[tuple[int, bytes]], sound: bytes) -> bytes:
    heads = [kind | (0x80 if i + 1 == len(blocks) else 0) for i, (kind, _) in enumerate(blocks)]
    parts = [
        bytes([head]) + len(content).to_bytes(3, "big") + content
        for head, (_, content) in zip(heads, blocks, strict=True)
    ]
    return b"fLaC" + b"".join(parts) + sound


def test_flac_keeps_its_blocks_and_an_id3_tag_before_it(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    blocks, sound = flac_parts()
    application = (2, b"riff" + bytes(range(200)))
    seek_table = (3, struct.pack(">QQH", 0, 0, 4096))
    kept = [block for block in blocks if block[0] != 1]
    prefix = id3_tag(3, frame(b"TIT2", b"\0Title"))
    path.write_bytes(prefix + flac_file([kept[0], application, *kept[1:], seek_table], sound))
    others = read_other_fields(path)
    write_tags(path, TAGS)
    assert read_other_fields(path) == others
    data = path.read_bytes()
    assert data.startswith(prefix + b"fLaC")
    assert data.endswith(sound)
    found = FLAC(path)
    assert [block.code for block in found.metadata_blocks] == [0, 2, 4, 6, 3, 1]
    assert found.pictures[0].data == PNG


def test_vorbis_keys_count_in_any_case(make: Callable[..., Path]) -> None:
    path = make(".flac")
    tags = FLAC(path)
    tags.tags.append(("gEnRe", "Mine"))
    tags.save()
    before = read_tags(path)
    assert before.genres == ("Mine",)
    write_tags(path, ONE)
    assert read_tags(path).genres == ("Jazz",)
    write_raw(path, before)
    assert read_tags(path) == before


@pytest.mark.parametrize("ending", sorted(EXTENSIONS))
@pytest.mark.parametrize("broken", [write_empty, write_text])
def test_what_is_no_audio_is_refused(
    tmp_path: Path, ending: str, broken: Callable[[Path], Path]
) -> None:
    path = broken(tmp_path / f"song{ending}")
    data = path.read_bytes()
    with pytest.raises(TagError):
        read_tags(path)
    with pytest.raises(TagError):
        write_tags(path, TAGS)
    assert path.read_bytes() == data


def test_a_file_that_is_not_there_is_no_bad_file(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="No such file"):
        read_tags(tmp_path / "gone.mp3")


@each_kind
def test_a_damaged_head_raises_our_errors_only(make: Callable[..., Path], ending: str) -> None:
    path, dice = make(ending, rich=True), random.Random(ending)
    sound = audio_bytes(ending, rich=True)
    for _ in range(40):
        data = bytearray(sound)
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(min(3000, len(data)))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            read_tags(path)
            read_other_fields(path)
            write_tags(path, ONE)
        except TrackError:
            continue
