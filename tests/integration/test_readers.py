"""What other programs show of a file: their genre is kept, their other fields stay, undo is whole.

Each file here was found to be read in one place by tagger and in another by FFmpeg, exiftool,
mediainfo or TagLib.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
from mutagen import ogg

from tagger.audio import hash_streams, read_metadata, read_windows
from tagger.errors import DecodeError, FailureKind, TagError
from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags
from tests.builders import audio_bytes, build_audio
from tests.front_door import ANY, Command, Scan
from tests.integration.test_killed import save_predictions
from tests.replacing import restore, retag

JAZZ = Tags(("Jazz",), ("Jazz",), "Jazz=1.0", "m")


def syncsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def frame(name: bytes, content: bytes) -> bytes:
    return name + struct.pack(">IH", len(content), 0) + content


def id3(*frames: bytes, version: int = 3, padding: int = 0, footer: bool = False) -> bytes:
    body = b"".join(frames) + bytes(padding)
    head = bytes([version, 0, 0x10 if footer else 0]) + syncsafe(len(body))
    return b"ID3" + head + body + (b"3DI" + head if footer else b"")


def id3v1(*, title: bytes = b"", comment: bytes = b"", genre: int = 255) -> bytes:
    return b"TAG" + title.ljust(94, b"\0") + comment.ljust(30, b"\0") + bytes([genre])


def ape_item(name: bytes, text: bytes) -> bytes:
    return struct.pack("<II", len(text), 0) + name + b"\0" + text


def ape(*items: bytes) -> bytes:
    body = b"".join(items)
    head = b"APETAGEX" + struct.pack("<III", 2000, len(body) + 32, len(items))
    return head + struct.pack("<I8x", 0xA0000000) + body + head + struct.pack("<I8x", 1 << 31)


def chunk(name: bytes, content: bytes, order: str = "<") -> bytes:
    size = struct.pack(f"{order}I", len(content))
    return name + size + content + bytes(len(content) % 2)


def atom(name: bytes, *contents: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, contents)), name) + b"".join(contents)


def data_atom(text: bytes) -> bytes:
    return atom(b"data", struct.pack(">II", 1, 0), text)


def bare(ending: str) -> bytes:
    """Return a file of the builders without any tag around its sound."""
    return strip_tags(audio_bytes(ending))


def strip_tags(data: bytes) -> bytes:
    start = 10 + int.from_bytes(data[8:10], "big") if data.startswith(b"ID3") else 0
    stop = data.find(b"APETAGEX")
    return data[start : stop if stop > 0 else None]


def grow_form(data: bytes, *chunks: bytes, order: str = "<") -> bytes:
    """Return a WAV or AIFF file with more chunks, and its size set."""
    body = data[8:] + b"".join(chunks)
    return data[:4] + struct.pack(f"{order}I", len(body)) + body


def insert_into_moov(data: bytes, content: bytes) -> bytes:
    """Return an MP4 file, whose moov atom stands behind its sound, with more atoms in it."""
    start = data.rindex(b"moov") - 4
    size = int.from_bytes(data[start : start + 4], "big")
    moov = data[start + 8 : start + size]
    return data[:start] + atom(b"moov", moov, content) + data[start + size :]


def handler(kind: bytes) -> bytes:
    return atom(b"hdlr", bytes(8) + kind + bytes(13))


def keyed_meta(key: bytes, value: bytes, version: bytes = b"") -> bytes:
    keys = atom(b"keys", struct.pack(">II", 0, 1), atom(b"mdta", key))
    item = atom(b"\0\0\0\1", data_atom(value))
    return atom(b"meta", version, handler(b"mdta"), keys, atom(b"ilst", item))


GENRE, TITLE = frame(b"TCON", b"\0Polka"), frame(b"TIT2", b"\0Title")
APE_GENRE = ape(ape_item(b"Genre", b"Polka"))
INFO_GENRE = chunk(b"LIST", b"INFO" + chunk(b"GENR", b"Polka\0"))
USER_GENRE = atom(b"\xa9gen", struct.pack(">HH", 5, 0x55C4), b"Polka")
XMP = b"<rdf:Description xmpDM:genre='Polka'/>"
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
ENHANCED = b"TAG+" + bytes(181) + b"Polka".ljust(30, b"\0") + bytes(12)
FREEFORM = atom(
    b"----", atom(b"mean", bytes(4), b"org.any"), atom(b"name", bytes(4), b"Genre"),
    data_atom(b"Polka"),
)  # fmt: skip
ITEMS = atom(b"meta", bytes(4), handler(b"mdir"), atom(b"ilst", FREEFORM))

SHOWN_GENRES: dict[str, Callable[[], bytes]] = {
    "second tag.mp3": lambda: id3(TITLE) + id3(GENRE) + bare(".mp3"),
    "third tag.mp3": lambda: id3(TITLE) + id3() + id3(GENRE) + bare(".mp3"),
    "second tag.aac": lambda: id3(TITLE) + id3(GENRE) + bare(".aac"),
    "second tag.tta": lambda: id3(TITLE) + id3(GENRE) + bare(".tta"),
    "own name.mp3": lambda: id3(frame(b"TXXX", b"\0Genre\0Polka")) + bare(".mp3"),
    "at the end.mp3": lambda: bare(".mp3") + id3(GENRE, version=4, footer=True),
    "at the end without a footer.mp3": lambda: bare(".mp3") + id3(GENRE),
    "behind zeros.mp3": lambda: id3(TITLE) + bytes(64) + id3(GENRE) + bare(".mp3"),
    "v1 beside v2.mp3": lambda: id3(TITLE) + bare(".mp3") + id3v1(genre=17),
    "v1 beside an empty v2.mp3": lambda: id3(padding=9) + bare(".mp3") + id3v1(genre=17),
    "enhanced v1.mp3": lambda: bare(".mp3") + ENHANCED + id3v1(),
    "ape.mp3": lambda: id3(TITLE) + bare(".mp3") + APE_GENRE,
    "ape.tta": lambda: bare(".tta") + APE_GENRE,
    "id3.flac": lambda: id3(GENRE) + bare(".flac"),
    "ape.flac": lambda: bare(".flac") + APE_GENRE,
    "v1.flac": lambda: bare(".flac") + id3v1(genre=17),
    "id3.wv": lambda: id3(GENRE) + bare(".wv"),
    "v1.wv": lambda: bare(".wv") + id3v1(genre=17),
    "id3 at the end.wv": lambda: bare(".wv") + id3(GENRE),
    "before another ape.wv": lambda: bare(".wv") + APE_GENRE + ape(ape_item(b"Title", b"Title")),
    "id3.ogg": lambda: id3(GENRE) + bare(".ogg"),
    "xmp.mp3": lambda: id3(frame(b"PRIV", b"XMP\0" + XMP), TITLE) + bare(".mp3"),
    "xmp.wav": lambda: grow_form(audio_bytes(".wav"), chunk(b"_PMX", XMP)),
    "xmp.m4a": lambda: audio_bytes(".m4a") + atom(b"uuid", XMP_UUID, XMP.replace(b"'", b'"')),
    "attribute.wma": lambda: audio_bytes(".wma", rich=True).replace(
        "WM/Lyrics\0".encode("utf-16-le"), "Genre\0\0\0\0\0".encode("utf-16-le")
    ).replace("la\nla\0".encode("utf-16-le"), "Polka\0".encode("utf-16-le")),
    "number.wma": lambda: audio_bytes(".wma", rich=True).replace(
        "WM/Lyrics\0".encode("utf-16-le"), "WM/GenreID".encode("utf-16-le")
    ).replace("la\nla\0".encode("utf-16-le"), "Polka\0".encode("utf-16-le")),
    "second chunk.wav": lambda: grow_form(
        audio_bytes(".wav"), chunk(b"id3 ", id3(TITLE)), chunk(b"id3 ", id3(GENRE))
    ),
    "behind the size.wav": lambda: audio_bytes(".wav") + chunk(b"id3 ", id3(GENRE)),
    "other info name.wav": lambda: grow_form(audio_bytes(".wav"), INFO_GENRE),
    "small info name.wav": lambda: grow_form(
        audio_bytes(".wav"), INFO_GENRE.replace(b"GENR", b"ignr")
    ),
    "info behind the size.wav": lambda: audio_bytes(".wav") + INFO_GENRE.replace(b"GENR", b"IGNR"),
    "behind the size.aiff": lambda: audio_bytes(".aiff") + chunk(b"ID3 ", id3(GENRE), ">"),
    "user data.m4a": lambda: insert_into_moov(audio_bytes(".m4a"), atom(b"udta", USER_GENRE)),
    "3gpp.m4a": lambda: insert_into_moov(
        audio_bytes(".m4a"), atom(b"udta", atom(b"gnre", bytes(6), b"Polka\0"))
    ),
    "keys.m4a": lambda: insert_into_moov(
        audio_bytes(".m4a"), keyed_meta(b"com.apple.quicktime.genre", b"Polka")
    ),
    "keys of ffmpeg.m4a": lambda: insert_into_moov(
        audio_bytes(".m4a"), atom(b"udta", keyed_meta(b"genre", b"Polka", bytes(4)))
    ),
    "freeform.m4a": lambda: insert_into_moov(audio_bytes(".m4a"), atom(b"udta", ITEMS)),
}  # fmt: skip


def test_a_genre_in_any_place_that_readers_know_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for name, make in SHOWN_GENRES.items():
        (library / name).write_bytes(make())
    scan = Scan(capsys, library, *ANY)
    found = {Path(row["path"]).name: row["existing_genre"] for row in scan.rows}
    expected = {
        name: "Rock" if "v1" in name and "enhanced" not in name else "Polka"
        for name in SHOWN_GENRES
    }
    assert found == expected
    assert {row["kind"] for row in scan.rows} == {"has-genre"}


def test_an_mp4_with_items_of_quicktime_is_refused_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    keys = keyed_meta(b"title", b"Title", bytes(4))
    sound = audio_bytes(".m4a").replace(b"udta", b"free")
    data = insert_into_moov(sound, atom(b"udta", keys))
    path.write_bytes(data)
    assert not read_tags(path).genres
    with pytest.raises(TagError, match="ffmpeg -i OLD -c copy NEW"):
        retag(path, JAZZ)
    assert path.read_bytes() == data


def look_at(path: Path) -> object:
    tags = read_tags(path)
    return tags, tags.raw, read_other_fields(path), hash_streams(path), read_metadata(path)


def make_empty_tags(library: Path) -> None:
    """Fill a folder with files whose tag is there but empty."""
    for ending in (".mp3", ".tta", ".wav", ".aiff", ".dsf", ".wv", ".flac", ".m4a"):
        build_audio(library / f"song{ending}", seconds=1.5)
    sounds = {path.suffix: path.read_bytes() for path in library.iterdir()}
    for size in (0, 2000):
        tag = id3(padding=size)
        for ending in (".mp3", ".tta"):
            (library / f"{size}{ending}").write_bytes(tag + strip_tags(sounds[ending]))
        wav = grow_form(sounds[".wav"], chunk(b"id3 ", tag))
        aiff = grow_form(sounds[".aiff"], chunk(b"ID3 ", tag, ">"), order=">")
        dsf = sounds[".dsf"]
        sizes = struct.pack("<QQ", len(dsf) + len(tag), len(dsf))
        (library / f"{size}.wav").write_bytes(wav)
        (library / f"{size}.aiff").write_bytes(aiff)
        (library / f"{size}.dsf").write_bytes(dsf[:12] + sizes + dsf[28:] + tag)
    for name, sound in (("v1", strip_tags(sounds[".mp3"])), ("v1 and two", sounds[".mp3"])):
        data = id3(padding=5) + sound + id3v1(title=b"Title")
        (library / f"{name}.mp3").write_bytes(data)
    empty_info = chunk(b"LIST", b"INFO")
    (library / "info.wav").write_bytes(grow_form(sounds[".wav"], empty_info))
    wavpack = strip_tags(sounds[".wv"])
    (library / "empty.wv").write_bytes(wavpack + ape())
    (library / "v1.wv").write_bytes(wavpack + id3v1(title=b"Title", comment=b"words"))
    empty_items = atom(b"meta", bytes(4), handler(b"mdir"), atom(b"ilst"))
    mp4 = insert_into_moov(sounds[".m4a"], atom(b"udta", empty_items))
    (library / "empty.m4a").write_bytes(mp4)


@pytest.mark.parametrize("padding", [0, 2000])
@pytest.mark.parametrize("ending", [".mp3", ".tta"])
def test_an_empty_tag_of_another_version_is_taken_back(
    tmp_path: Path, ending: str, padding: int
) -> None:
    path = tmp_path / f"song{ending}"
    path.write_bytes(id3(padding=padding) + bare(ending))
    before = look_at(path)
    fields = read_tags(path)
    retag(path, JAZZ)
    restore(path, fields)
    assert look_at(path) == before


@pytest.mark.slow
def test_a_tag_that_was_there_but_empty_is_taken_back(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    make_empty_tags(library)
    before = {path: look_at(path) for path in library.iterdir()}
    save_predictions(home / "tagger" / "state.sqlite", list(before))
    scan = Scan(capsys, library)
    assert scan.actions == {"written": len(before)}, scan.rows
    undo = Command(capsys, "undo", "-v")
    assert undo.summary["restored"] == len(before), undo.err
    for path, content in before.items():
        assert look_at(path) == content, path.name


LATIN, UNICODE = "Gr\u00f6\u00dfe".encode("latin-1"), "Gr\u00f6\u00dfe".encode()


@pytest.mark.parametrize(
    "front", [b"", id3(), id3(version=4, padding=9)], ids=["none", "2.3", "2.4"]
)
@pytest.mark.parametrize(
    ("title", "shown"),
    [
        (UNICODE, "Gr\u00f6\u00dfe"),
        (UNICODE + b"x" * 22 + UNICODE[2:], "Gr\u00f6\u00dfe" + "x" * 22),  # cut within a letter
        (LATIN, "Gr\u00f6\u00dfe"),
        (b"Title".ljust(30), "Title"),
    ],
)
@pytest.mark.parametrize("ending", [".mp3", ".tta", ".wv"])
def test_the_texts_of_id3v1_are_shown_as_before(
    tmp_path: Path, ending: str, front: bytes, title: bytes, shown: str
) -> None:
    path = tmp_path / f"song{ending}"
    front = b"" if ending == ".wv" else front
    data = front + bare(ending) + id3v1(title=title[:30], comment=b"words")
    path.write_bytes(data)
    before, fields = read_metadata(path), read_tags(path)
    retag(path, JAZZ)
    after = read_metadata(path)
    assert after == before
    assert after["what FFmpeg shows as title"] == shown
    assert after["what FFmpeg shows as comment"] == "words"
    restore(path, fields)
    assert read_metadata(path) == before
    assert front or path.read_bytes() == data


@pytest.mark.parametrize(
    ("ending", "hidden"),
    [
        (".wav", chunk(b"id3 ", id3(TITLE))),
        ("no size.wav", chunk(b"id3 ", id3(TITLE))),
        (".wav", chunk(b"LIST", b"INFO" + chunk(b"INAM", b"Title\0"))),
        (".wav", chunk(b"LIST", b"INFO") + chunk(b"id3 ", id3(TITLE))),
        (".wav", chunk(b"id3 ", id3()) + chunk(b"id3 ", id3(TITLE))),
        (".aiff", chunk(b"ID3 ", id3(TITLE), ">")),
    ],
)
def test_a_title_behind_the_declared_size_stays(tmp_path: Path, ending: str, hidden: bytes) -> None:
    path = tmp_path / f"song{ending}"
    data = audio_bytes(path.suffix)
    path.write_bytes(data[:4] + (bytes(4) if " " in ending else data[4:8]) + data[8:] + hidden)
    fields = read_tags(path)
    retag(path, JAZZ)
    assert read_metadata(path)["what FFmpeg shows as title"] == "Title"
    assert read_tags(path).genres == ("Jazz",)
    restore(path, fields)
    assert read_metadata(path)["what FFmpeg shows as title"] == "Title"
    assert path.read_bytes().count(b"Title") == 1


THEORA_HEAD = bytes.fromhex(
    "807468656f726103020100040004000040000040000000015f900000000100000100000100030d4000d8"
)
"""The first packet of a Theora stream of 64 x 64 pixels."""
SKELETON_HEAD = b"fishead\0" + struct.pack("<HHqqqq20x", 3, 0, 0, 1000, 0, 1000)


def page(packet: bytes, serial: int, number: int, *, last: bool = False) -> bytes:
    each: Any = ogg.OggPage()
    each.packets, each.serial, each.sequence = [packet], serial, number
    each.first, each.last, each.position = number == 0, last, 0
    written: bytes = each.write()
    return written


def vorbis_comments(*items: bytes) -> bytes:
    sized = [struct.pack("<I", len(item)) + item for item in items]
    return struct.pack("<II", 0, len(items)) + b"".join(sized)


def add_stream(data: bytes, *packets: bytes, in_front: bool = True) -> bytes:
    """Return an Ogg file with another stream. in_front: it begins before that of the sound."""
    head = data.index(b"OggS", 4)
    pages = [
        page(packet, 99, number, last=number == len(packets) - 1)
        for number, packet in enumerate(packets)
    ]
    first = pages[0] + data[:head] if in_front else data[:head] + pages[0]
    return first + b"".join(pages[1:]) + data[head:]


COVER = (THEORA_HEAD, b"\x81theora" + vorbis_comments(b"title=Cover"), b"\x82theora", b"\0picture")


@pytest.mark.parametrize("in_front", [True, False])
@pytest.mark.parametrize("packets", [COVER, (SKELETON_HEAD, b"")], ids=["theora", "skeleton"])
@pytest.mark.parametrize("ending", [".ogg", ".opus", ".oga"])
def test_the_first_stream_with_sound_is_tagged(
    tmp_path: Path, ending: str, packets: tuple[bytes, ...], *, in_front: bool
) -> None:
    path = tmp_path / f"song{ending}"
    data = add_stream(audio_bytes(ending), *packets, in_front=in_front)
    path.write_bytes(data)
    before = read_tags(path), read_metadata(path)
    large = replace(JAZZ, scores="x" * 99_999)
    for tags in (JAZZ, large):
        retag(path, tags)
        assert read_tags(path) == tags
    with av.open(str(path)) as container:
        genre = container.streams.audio[0].metadata["GENRE"]
    assert set(genre.split(";")) == {"Jazz"}  # FFmpeg reads the head of a FLAC stream twice
    restore(path, before[0])
    assert (read_tags(path), read_metadata(path)) == before


def test_a_genre_beside_the_picture_of_an_ogg_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "song.ogg"
    packets = (THEORA_HEAD, b"\x81theora" + vorbis_comments(b"genre=Polka"), b"\x82theora")
    path.write_bytes(add_stream(audio_bytes(".ogg"), *packets))
    assert read_tags(path).genres == ("Polka",)


def test_sound_between_tags_of_other_kinds_is_heard_and_tagged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    sounds = {
        ending: strip_tags(build_audio(tmp_path / f"x{ending}", seconds=2).read_bytes())
        for ending in (".ogg", ".wv", ".flac")
    }
    (library / "front.ogg").write_bytes(id3(TITLE) + sounds[".ogg"])
    (library / "front.flac").write_bytes(id3(padding=5) + sounds[".flac"])
    (library / "front.wv").write_bytes(
        id3(TITLE) + sounds[".wv"] + ape(ape_item(b"Title", b"Title"))
    )
    (library / "behind.wv").write_bytes(sounds[".wv"] + id3v1(title=b"Title"))
    (library / "hidden.wv").write_bytes(id3(TITLE) + sounds[".wv"])
    before = {path: look_at(path) for path in library.iterdir()}
    scan = Scan(capsys, library, *ANY)
    assert scan.actions == {"written": 4, "failed": 1}, scan.rows
    assert "stands in front of its sound" in scan.row("hidden.wv")["error"]
    assert Command(capsys, "undo").summary["restored"] == 4
    assert {path: look_at(path) for path in library.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "ending", "found"),
    [
        ("song.wav", ".mp3", "it is MP3, whatever its name says: rename it to *.mp3"),
        ("song.flac", ".mp3", "it is MP3"),
        ("song.mp3", ".m4a", "it is MP4, whatever its name says: rename it to *.m4a"),
        ("song.ogg", ".flac", "it is FLAC"),
        ("song.m4a", ".ogg", "it is Ogg"),
        ("song.wma", ".wav", "it is WAV"),
        ("song.aiff", ".wav", "it is WAV"),
        ("song.wav", ".aiff", "it is AIFF"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(
    tmp_path: Path, name: str, ending: str, found: str
) -> None:
    path = tmp_path / name
    path.write_bytes(audio_bytes(ending))
    with pytest.raises(TagError, match=re.escape(found)) as raised:
        read_tags(path, for_writing=True)
    assert raised.value.kind is FailureKind.WRONG_CONTENT


def test_a_file_of_another_kind_is_heard_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for name, ending in (("a.wav", ".mp3"), ("b.mp3", ".flac"), ("c.m4a", ".wav")):
        (library / name).write_bytes(build_audio(tmp_path / f"x{ending}", seconds=2).read_bytes())
    before = {path: look_at(path) for path in library.iterdir()}
    for options in (["--dry-run"], [], []):
        rows = Scan(capsys, library, *ANY, *options).rows
        assert [(row["action"], row["kind"]) for row in rows] == [("failed", "wrong-content")] * 3
        assert all(row["genre"] and row["scores"] and row["existing_genre"] == "" for row in rows)
        assert all("rename it to" in row["error"] for row in rows)
    assert Command(capsys, "undo").summary["restored"] == 0
    assert {path: look_at(path) for path in library.iterdir()} == before
    (library / "a.wav").rename(library / "a.mp3")
    assert Scan(capsys, library, *ANY).row("a.mp3")["action"] == "written"


def test_encrypted_sound_is_called_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    key = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76" * 16,
        "encryption_kid": "a7" * 16,
    }
    with (
        av.open(str(build_audio(tmp_path / "plain.m4a"))) as source,
        av.open(str(path), "w", format="mp4", options=key) as target,
    ):
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(DecodeError, match="encrypted"):
        read_windows(path, rate_hz=16_000, window_s=1, count=1)
