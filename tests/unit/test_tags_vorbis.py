"""Vorbis comments in FLAC blocks and on Ogg pages, and what stands beside them."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import pytest
from mutagen import ogg

from tagger.audio.decoders import AV_ARGUMENTS
from tagger.errors import TagError
from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags, write_tags
from tests.builders import audio_bytes
from tests.rounds import OURS, written_and_undone

NEW_PAGE: Any = ogg.OggPage  # mutagen has no types
LARGE_PAGE = 255 * 250
OGGS = pytest.mark.parametrize("ending", [".ogg", ".opus", ".oga", ".spx"])
LONG = Tags(("Jazz",), ("Jazz",), "x" * 300_000, "musicnn")
ITEMS = (
    b"Title=Tr\xc3\xa4ume",
    b"no equals sign",
    b"latin=\xe9",
    b"K\xc3\xa9y=x",
    b"=empty",
    b"",
    b"gEnRe=Mine",
    b"Genre=Yours",
    b"GENRE=",
    b"TITLE=again",
    b"METADATA_BLOCK_PICTURE=AAA",
)


def comments(*items: bytes, vendor: bytes = b"some \xff one") -> bytes:
    sized = [struct.pack("<I", len(item)) + item for item in (vendor, *items)]
    return sized[0] + struct.pack("<I", len(items)) + b"".join(sized[1:])


def flac_parts() -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the blocks of a FLAC file that are neither comments nor padding, and its sound."""
    data, at, last = audio_bytes(".flac", rich=True), 4, False
    blocks = []
    while not last:
        last, kind = data[at] > 127, data[at] & 127
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        blocks.append((kind, data[at + 4 : at + 4 + size]))
        at += 4 + size
    return [block for block in blocks if block[0] not in (1, 4)], data[at:]


def flac(blocks: Sequence[tuple[int, bytes]], sound: bytes) -> bytes:
    parts = [
        bytes([kind | (128 if number + 1 == len(blocks) else 0)])
        + len(content).to_bytes(3, "big")
        + content
        for number, (kind, content) in enumerate(blocks)
    ]
    return b"fLaC" + b"".join(parts) + sound


def blocks_of(data: bytes) -> list[tuple[int, bytes]]:
    at, found, last = data.index(b"fLaC") + 4, [], False
    while not last:
        last, size = data[at] > 127, int.from_bytes(data[at + 1 : at + 4], "big")
        found.append((data[at] & 127, data[at + 4 : at + 4 + size]))
        at += 4 + size
    return [block for block in found if block[0] != 1]


def test_the_second_of_several_blocks_of_comments_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    (info, picture), sound = flac_parts()
    second, third = (4, comments(b"GENRE=Theirs")), (4, comments(b"a=b", b"broken"))
    first = (4, comments(*ITEMS))
    path.write_bytes(flac([info, first, second, picture, third], sound))
    assert read_tags(path).genres == ("Mine", "Yours")
    written, undone = written_and_undone(path)
    assert blocks_of(undone) == [info, first, second, picture, third]
    assert blocks_of(written)[2:] == [second, picture, third]
    before = read_other_fields(path)
    path.write_bytes(undone.replace(b"GENRE=Theirs", b"GENRE=Others"))
    assert read_other_fields(path) != before


def test_a_file_without_comments_gets_a_block_and_loses_it_again(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    (info, picture), sound = flac_parts()
    path.write_bytes(flac([info, picture], sound))
    written, undone = written_and_undone(path)
    assert [kind for kind, _ in blocks_of(written)] == [0, 6, 4]
    assert blocks_of(undone) == [info, picture]


def test_tags_of_other_kinds_around_a_flac_stream_stay(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    front = b"ID3\4\0\0\0\0\0\x14" + b"TIT2\0\0\0\6\0\0\3Title".ljust(20, b"\0")
    behind = b"TAG" + bytes(125)
    blocks, sound = flac_parts()
    path.write_bytes(front + flac(blocks, sound) + behind)
    with pytest.raises(TagError, match="stands in front of its sound"):
        write_tags(path, OURS)
    blocks.append((4, comments(b"TITLE=Title")))
    path.write_bytes(front + flac(blocks, sound) + behind)
    written, undone = written_and_undone(path)
    for each in (written, undone):
        assert each.startswith(front + b"fLaC")
        assert each.endswith(behind)


def test_a_picture_as_large_as_flac_knows_stays(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    (info, picture), sound = flac_parts()
    large = (6, picture[1].ljust((1 << 24) - 1, b"\xaa"))
    path.write_bytes(flac([info, large, (4, comments(*ITEMS))], sound))
    written, _ = written_and_undone(path)
    assert blocks_of(written)[1] == large


def test_comments_too_large_for_flac_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.flac"
    (info, _), sound = flac_parts()
    full = (4, comments(b"a=" + bytes([65]) * ((1 << 24) - 60)))
    path.write_bytes(flac([info, full], sound))
    with pytest.raises(TagError, match="16 MB that a FLAC block can be"):
        write_tags(path, OURS)


@pytest.mark.parametrize("size", [1, -1])
def test_a_block_with_a_wrong_size_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "song.flac"
    (info, picture), sound = flac_parts()
    data = flac([info, (4, comments(*ITEMS)), picture], sound)
    head = b"\x86" + len(picture[1]).to_bytes(3, "big")
    path.write_bytes(data.replace(head, b"\x86" + (len(picture[1]) + size).to_bytes(3, "big")))
    before = path.read_bytes()
    with pytest.raises(TagError, match="size of a metadata block is wrong"):
        write_tags(path, OURS)
    assert path.read_bytes() == before


def packets_of(data: bytes) -> list[tuple[int, bytes]]:
    """Return serial and content of the packets of an Ogg file, as far as they are whole."""
    found: dict[int, bytes] = {}
    packets, at = [], 0
    while data[at : at + 4] == b"OggS":
        serial, count = int.from_bytes(data[at + 14 : at + 18], "little"), data[at + 26]
        body = at + 27 + count
        for lacing in data[at + 27 : body]:
            found[serial] = found.get(serial, b"") + data[body : body + lacing]
            body += lacing
            if lacing < 255:
                packets.append((serial, found.pop(serial)))
        at = body
    return packets


def with_comments(ending: str, new: bytes) -> bytes:
    """Return a file whose packet of comments holds these bytes behind its beginning."""
    data = audio_bytes(ending)
    starts = {".ogg": b"\x03vorbis", ".opus": b"OpusTags", ".oga": b"", ".spx": b""}
    packets = [packet for _, packet in packets_of(data)]
    head = b"\x84" + len(new).to_bytes(3, "big") if ending == ".oga" else starts[ending]
    first, last = packets[2:3] if ending == ".ogg" else [], data.index(b"OggS", 4)
    pages = [page for packet in [head + new, *first] for page in pages_of(packet)]
    rest = pages_behind(data, 2 + len(first))
    for number, page in enumerate(pages):
        page.serial, page.sequence = int.from_bytes(data[14:18], "little"), number + 1
    shift = len(pages) + 1 - rest[0].sequence
    for page in rest:
        page.sequence += shift
    return data[:last] + b"".join(page.write() for page in [*pages, *rest])


def pages_of(packet: bytes) -> list[Any]:
    """Lay a packet out on pages of its own; mutagen takes minutes over large ones."""
    pages = []
    for start in range(0, len(packet), LARGE_PAGE):
        page = NEW_PAGE()
        page.packets, page.continued = [packet[start : start + LARGE_PAGE]], start > 0
        page.complete = start + LARGE_PAGE >= len(packet)
        page.position = 0 if page.complete else -1
        pages.append(page)
    return pages


def pages_behind(data: bytes, packets: int) -> list[Any]:
    """Return the pages of sound of a file with so many packets of headers."""
    pages, at, seen = [], 0, 0
    while at < len(data):
        stop = data.find(b"OggS", at + 4)
        stop = stop if stop > 0 else len(data)
        page = NEW_PAGE(io.BytesIO(data[at:stop]))
        if seen >= packets:
            pages.append(page)
        seen += len(page.packets) if page.complete else len(page.packets) - 1
        at = stop
    return pages


def sound_of(path: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(path), **AV_ARGUMENTS) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0)]


@OGGS
@pytest.mark.parametrize("tail", [b"", bytes(100), b"\x01\xff kept", b"\0\0 kept too"])
def test_odd_comments_and_what_stands_behind_them_stay(
    tmp_path: Path, ending: str, tail: bytes
) -> None:
    path = tmp_path / f"song{ending}"
    framing = b"\1" if ending == ".ogg" else b""
    path.write_bytes(with_comments(ending, comments(*ITEMS) + framing + tail))
    before = sound_of(path)
    assert before
    assert read_tags(path).genres == ("Mine", "Yours")
    write_tags(path, LONG)
    assert sound_of(path) == before
    written, undone = written_and_undone(path)
    for each in (written, undone):
        assert tail.strip(b"\0") in packets_of(each)[1][1]
    assert sound_of(path) == before


@OGGS
def test_any_genre_comes_back_in_its_case_and_place(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"song{ending}"
    framing = b"\1" if ending == ".ogg" else b""
    path.write_bytes(with_comments(ending, comments(*ITEMS) + framing))
    _, undone = written_and_undone(path)
    assert comments(*ITEMS) in packets_of(undone)[1][1]


def other_stream(data: bytes, serial: int) -> bytes:
    """Return the same file as another stream."""
    output = b""
    for page in pages_behind(data, 0):
        page.serial = serial
        output += page.write()
    return output


@OGGS
@pytest.mark.parametrize("serial", [99, None], ids=["another number", "the same number"])
def test_a_chained_stream_stays(tmp_path: Path, ending: str, serial: int | None) -> None:
    path = tmp_path / f"song{ending}"
    first, second = audio_bytes(ending), audio_bytes(ending, rich=True)
    if serial is not None:
        second = other_stream(second, serial)
    path.write_bytes(first + second)
    write_tags(path, LONG)
    assert path.read_bytes().endswith(second)
    for each in written_and_undone(path):
        assert each.endswith(second)


@OGGS
def test_pages_of_another_stream_in_between_stay(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"song{ending}"
    ours = pages_behind(audio_bytes(ending), 0)
    theirs = pages_behind(other_stream(audio_bytes(".spx"), 5), 0)
    mixed = [page for pair in zip(ours, theirs, strict=False) for page in pair]
    mixed += ours[len(theirs) :] + theirs[len(ours) :]
    path.write_bytes(b"".join(page.write() for page in mixed))
    before = [packet for packet in packets_of(path.read_bytes()) if packet[0] == 5]
    write_tags(path, LONG)
    for each in (path.read_bytes(), *written_and_undone(path)):
        assert [packet for packet in packets_of(each) if packet[0] == 5] == before


@OGGS
def test_bytes_behind_the_last_page_stay(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"song{ending}"
    path.write_bytes(audio_bytes(ending) + b"TAG" + bytes(125))
    write_tags(path, LONG)
    for each in (path.read_bytes(), *written_and_undone(path)):
        assert each.endswith(b"TAG" + bytes(125))


@OGGS
@pytest.mark.parametrize("last_pages", [1, 3], ids=["one last page", "three, as some encoders do"])
def test_pages_are_numbered_on(tmp_path: Path, ending: str, last_pages: int) -> None:
    path = tmp_path / f"song{ending}"
    old_pages = pages_behind(audio_bytes(ending), 0)
    for page in old_pages[-last_pages:]:
        page.last = True
    path.write_bytes(b"".join(page.write() for page in old_pages))
    write_tags(path, LONG)
    pages = pages_behind(path.read_bytes(), 0)
    assert [page.sequence for page in pages] == list(range(len(pages)))
    assert b"".join(page.write() for page in pages) == path.read_bytes()  # the checksums too


@OGGS
def test_a_wrong_checksum_of_a_page_with_sound_counts(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"song{ending}"
    path.write_bytes(audio_bytes(ending))
    before = read_other_fields(path)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"OggS") + 22] ^= 1
    path.write_bytes(data)
    after = read_other_fields(path)
    assert [name[:9] for name in before if before[name] != after[name]] == ["the sound"]


def test_sound_on_the_page_of_the_comments_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.opus"
    pages = pages_behind(audio_bytes(".opus"), 0)
    pages[1].packets += pages[2].packets[:3]
    pages[1].position = 3 * 960
    path.write_bytes(b"".join(page.write() for page in pages))
    assert read_tags(path).genres == ()
    with pytest.raises(TagError, match="begins on the page of its comments"):
        write_tags(path, OURS)


def test_broken_comments_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "song.opus"
    path.write_bytes(with_comments(".opus", comments(b"a=b")[:-2]))
    with pytest.raises(TagError, match="comments are broken"):
        write_tags(path, OURS)
