"""MP4 files: their items as they are, and the places where their sound is."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import av
import pytest

from tagger.errors import FailureKind, TagError
from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags, write_raw, write_tags
from tagger.tags.mp4 import build_atom, find_atom_path, read_atoms, save_mp4_items
from tests.builders import PNG, audio_bytes, build_audio
from tests.rounds import OURS, written_and_undone

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "100000"}


def atom(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, name) + body


def data(kind: int, value: bytes, *, locale: int = 0) -> bytes:
    return atom(b"data", struct.pack(">II", kind, locale), value)


def with_items(*items: bytes) -> bytes:
    """Return an MP4 file, its head behind the sound, with these items."""
    file = audio_bytes(".m4a")
    start = file.index(b"moov") - 4
    meta = atom(
        b"meta", bytes(4), atom(b"hdlr", bytes(8), b"mdirappl", bytes(9)), atom(b"ilst", *items)
    )
    moov = file[start + 8 : file.index(b"udta") - 4]
    return file[:start] + atom(b"moov", moov, atom(b"udta", meta))


def remuxed(path: Path, target: Path, options: dict[str, str]) -> Path:
    with (
        av.open(str(path)) as source,
        av.open(str(target), "w", format="mp4", options=options) as output,
    ):
        stream = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return target


ODD_ITEMS = (
    atom(b"covr", data(0, PNG), atom(b"name", b"front.png"), data(27, b"BM")),
    atom(b"disk", data(0, bytes(8))),
    atom(b"tmpo", data(21, bytes(4))),
    atom(b"cpil", data(21, b"\2")),
    atom(b"\xa9nam", data(1, b"Title", locale=0x1545)),
    atom(b"\xa9alb", data(2, "Ålbum".encode("utf-16-be"))),
    atom(b"\xa9ART", data(1, b"no \xff UTF-8")),
    atom(b"\xa9day", b"no atom at all"),
    atom(b"xyz ", data(0, b"\0\1")),
    atom(b"----", atom(b"mean", bytes(4), b"org"), atom(b"name", bytes(4), b"X"), data(0, b"\0")),
    atom(b"----", b"broken"),
    atom(b"\xa9nam", data(1, b"a second title")),
)


@pytest.mark.parametrize(
    "genre",
    [
        atom(b"gnre", data(0, b"\0\x12")),
        atom(b"gnre", data(21, b"\0\x12"), data(0, b"\0\x09")),
        atom(b"\xa9gen", data(1, b"Rock", locale=7)),
        atom(b"\xa9gen", data(0, b"Rock")),
        atom(b"\xa9gen", data(1, b"Rock")) + atom(b"\xa9gen", data(1, b"Pop")),
        atom(b"\xa9gen", data(1, b"Rock"), data(1, b"Pop")),
    ],
    ids=["number", "numbers", "locale", "implicit", "two atoms", "two values"],
)
def test_odd_items_stay_and_any_genre_comes_back_as_it_was(tmp_path: Path, genre: bytes) -> None:
    path = tmp_path / "song.m4a"
    path.write_bytes(with_items(*ODD_ITEMS[:6], genre, *ODD_ITEMS[6:]))
    assert read_tags(path).genres[0] == "Rock"
    written, undone = written_and_undone(path)
    assert b"gnre" not in written
    for each in (written, undone):
        assert all(item in each for item in ODD_ITEMS)
    assert b"".join([*ODD_ITEMS[:6], genre, *ODD_ITEMS[6:]]) in undone


@pytest.mark.parametrize("items", [(), (atom(b"\xa9gen", data(1, b"Rock")),)])
def test_a_zero_may_end_a_list_of_quicktime(tmp_path: Path, items: Sequence[bytes]) -> None:
    file = bytearray(with_items(*items) + bytes(4))
    for name in (b"moov", b"udta"):
        place = file.index(name) - 4
        size = int.from_bytes(file[place : place + 4], "big")
        file[place : place + 4] = struct.pack(">I", size + 4)
    path = tmp_path / "song.m4a"
    path.write_bytes(file)
    assert "moov.udta.(end)" in read_other_fields(path)
    for each in written_and_undone(path):
        udta = each.index(b"udta") - 4
        size = int.from_bytes(each[udta : udta + 4], "big")
        assert each[udta + size - 4 : udta + size] == bytes(4)
        assert udta + size == len(each)


@pytest.mark.parametrize("number", [b"\0\0", b"\0\xff", b"\1", b""])
def test_a_number_that_is_no_genre_comes_back(tmp_path: Path, number: bytes) -> None:
    path = tmp_path / "song.m4a"
    path.write_bytes(with_items(atom(b"gnre", data(0, number))))
    written_and_undone(path)


def top_atoms(file: bytes) -> dict[bytes, tuple[int, int]]:
    """Return where the atoms of a file start and stop."""
    found, start = {}, 0
    while start < len(file):
        size, name = struct.unpack_from(">I4s", file, start)
        found[name] = (start, start + size)
        start += size
    return found


def shifted(moov: bytes, by: int) -> bytes:
    """Return a moov whose one table of offsets points so many bytes further."""
    at = moov.index(b"stco") + 8
    (count,) = struct.unpack_from(">I", moov, at)
    layout = f">{count}I"
    places = struct.unpack_from(layout, moov, at + 4)
    new = struct.pack(layout, *(place + by for place in places))
    return moov[: at + 4] + new + moov[at + 4 + len(new) :]


def arranged(order: Sequence[bytes], *, long: bool) -> bytes:
    """Return an MP4 with its atoms in this order, the sound's size in 64 bits if `long`."""
    file = audio_bytes(".m4a", rich=True)
    parts = {name: file[start:stop] for name, (start, stop) in top_atoms(file).items()}
    old = file.index(parts[b"mdat"]) + 8
    sound = parts[b"mdat"][8:]
    if long:
        parts[b"mdat"] = struct.pack(">I4sQ", 1, b"mdat", len(sound) + 16) + sound
    new = sum(len(parts[name]) for name in order[: order.index(b"mdat")]) + (16 if long else 8)
    parts[b"moov"] = shifted(parts[b"moov"], new - old)
    return b"".join(parts[name] for name in order)


@pytest.mark.parametrize("order", [(b"ftyp", b"mdat", b"moov"), (b"ftyp", b"moov", b"mdat")])
@pytest.mark.parametrize("long", [False, True])
def test_the_sound_is_found_wherever_it_lies(
    tmp_path: Path, order: Sequence[bytes], *, long: bool
) -> None:
    path = tmp_path / "song.m4a"
    path.write_bytes(arranged(order, long=long))
    sound = packets(path)
    write_tags(path, OURS)
    assert packets(path) == sound
    written_and_undone(path)


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0)]


def test_offsets_that_did_not_move_along_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    path.write_bytes(arranged((b"ftyp", b"moov", b"mdat"), long=False))
    others = read_other_fields(path)
    path.write_bytes(shifted(path.read_bytes(), 4))
    differing = {name for name, value in read_other_fields(path).items() if others[name] != value}
    assert differing == {"moov.trak.mdia.minf.stbl.stco"}


def test_chapters_are_a_part_of_what_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "book.m4b"
    path.write_bytes(audio_bytes(".m4b"))
    assert "moov.udta.chpl" in read_other_fields(path)
    path.write_bytes(path.read_bytes().replace(b"Chapter 1", b"Chapter\xff2"))
    written_and_undone(path)


@pytest.mark.parametrize(
    ("flags", "duration", "count"),
    [("+default_base_moof+skip_trailer", "100000", 9), ("+skip_trailer", "9000000", 1)],
    ids=["from where they stand", "one from the start of the file"],
)
def test_fragments_that_mutagen_can_move_are_written(
    tmp_path: Path, flags: str, duration: str, count: int
) -> None:
    options = {"movflags": FRAGMENTS["movflags"] + flags, "frag_duration": duration}
    path = remuxed(build_audio(tmp_path / "a.m4a", seconds=1), tmp_path / "song.mp4", options)
    sound = packets(path)
    write_tags(path, OURS)
    assert path.read_bytes().count(b"moof") == count
    assert packets(path) == sound
    written_and_undone(path)


@pytest.mark.parametrize("trailer", ["", "+skip_trailer"])
def test_fragments_that_point_from_the_start_of_the_file_are_refused(
    tmp_path: Path, trailer: str
) -> None:
    options = {**FRAGMENTS, "movflags": FRAGMENTS["movflags"] + trailer}
    path = remuxed(build_audio(tmp_path / "a.m4a", seconds=1), tmp_path / "song.mp4", options)
    before = path.read_bytes()
    with pytest.raises(TagError, match=r"fragmented MP4; ffmpeg -i OLD -c copy NEW"):
        write_tags(path, OURS)
    assert path.read_bytes() == before


def test_a_damaged_tree_of_atoms_is_refused_with_a_cure(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    path.write_bytes(with_items(b"\0\0\0\0abcd"))
    with pytest.raises(TagError, match="may mend it"):
        read_tags(path)


def test_an_atom_that_ends_elsewhere_than_its_content_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    head = with_items(atom(b"\xa9gen", data(1, b"Rock")))
    place = head.index(b"udta") - 4
    size = int.from_bytes(head[place : place + 4], "big")
    path.write_bytes(head[:place] + struct.pack(">I", size - 8) + head[place + 4 :])
    before = path.read_bytes()
    assert read_tags(path).genres == ("Rock",)
    with pytest.raises(TagError, match="do not fit into one another"):
        write_tags(path, OURS)
    assert path.read_bytes() == before


def test_an_older_journal_without_bytes_still_brings_a_genre_back(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    path.write_bytes(with_items(atom(b"gnre", data(0, b"\0\x12"))))
    raw = [field for field in read_tags(path).raw if field.name == "\xa9gen"]
    write_raw(path, Tags(raw=tuple(raw)))
    assert read_tags(path).genres == ("Rock",)


def test_an_atom_that_claims_more_than_there_is_costs_no_time(tmp_path: Path) -> None:
    path = tmp_path / "x.m4a"
    path.write_bytes(audio_bytes(".m4a") + struct.pack(">I4sQ", 1, b"free", 1 << 43))
    assert read_other_fields(path)


def test_a_table_of_offsets_that_is_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.m4a"
    data = bytearray(audio_bytes(".m4a"))
    count = data.index(b"stco") + 8
    data[count + 3] += 1
    path.write_bytes(data)
    with pytest.raises(TagError, match="do not fit"):
        write_tags(path, OURS)
    assert path.read_bytes() == data


HANDLER = atom(b"hdlr", bytes(8), b"mdirappl", bytes(9))
ITEM = atom(b"\xa9nam", data(1, b"Title"))


def in_moov(*content: bytes, long: bool = False) -> bytes:
    """Return a small file: a moov with a table of two offsets into the mdat behind it."""
    moov = atom(b"stco", bytes(4), struct.pack(">III", 2, 0, 0)) + b"".join(content)
    head = struct.pack(">I4sQ", 1, b"moov", len(moov) + 16) if long else atom(b"moov", moov)[:8]
    sound = len(head) + len(moov) + 8
    return (head + moov + atom(b"mdat", b"SOUND")).replace(
        struct.pack(">III", 2, 0, 0), struct.pack(">III", 2, sound, sound + 2)
    )


def meta(*content: bytes) -> bytes:
    return atom(b"udta", atom(b"meta", bytes(4), *content))


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        (),
        (atom(b"udta"),),
        (atom(b"udta", atom(b"chpl", b"chapter")),),
        (atom(b"udta", bytes(4)),),
        (atom(b"udta", atom(b"chpl", b"chapter"), bytes(4)),),
        (atom(b"udta", atom(b"meta", bytes(4), HANDLER), bytes(4)),),
        (meta(HANDLER),),
        (meta(HANDLER, atom(b"ilst", ITEM)),),
        (meta(HANDLER, atom(b"ilst", ITEM), atom(b"free", bytes(30))),),
        (meta(HANDLER, atom(b"free", bytes(90_000)), atom(b"ilst", ITEM)),),
        (meta(atom(b"ilst", ITEM), HANDLER, atom(b"free")),),
    ],
)
def test_sizes_and_offsets_follow_new_items(content: Sequence[bytes], *, long: bool) -> None:
    old = in_moov(*content, long=long)
    file = io.BytesIO(old)
    save_mp4_items(file, [ITEM, ITEM])
    atoms = read_atoms(file)
    assert [each.name for each in atoms] == [b"moov", b"mdat"]
    moov, udta, _, ilst = find_atom_path(atoms, (b"moov", b"udta", b"meta", b"ilst"))
    assert moov.children
    assert moov.children[-1].stop == moov.stop == atoms[1].start
    assert udta.stop <= moov.stop
    assert file.getvalue()[ilst.start : ilst.stop] == atom(b"ilst", ITEM, ITEM)
    table = next(each for each in moov.children if each.name == b"stco")
    offsets = struct.unpack_from(">II", file.getvalue(), table.start + 16)
    assert [file.getvalue()[at : at + 2] for at in offsets] == [b"SO", b"UN"]
    assert HANDLER in file.getvalue()
    assert (b"chapter" in old) == (b"chapter" in file.getvalue())
    save_mp4_items(file, [])
    assert ITEM not in file.getvalue()
    if b"meta" not in old:
        assert file.getvalue() == (in_moov(long=long) if content == (atom(b"udta"),) else old)


def test_an_offset_that_no_table_can_hold_is_refused() -> None:
    file = io.BytesIO(in_moov())
    start = file.getvalue().index(b"stco") + 12
    file.seek(start)
    file.write(b"\xff\xff\xff\xff")
    with pytest.raises(TagError, match="cannot point at"):
        save_mp4_items(file, [ITEM])


@pytest.mark.parametrize(
    "broken",
    [
        struct.pack(">I4s", 7, b"free"),
        struct.pack(">I4sQ", 1, b"free", 15),
        struct.pack(">I4s", 1, b"free"),
        atom(b"moov", bytes(4)),
        atom(b"moov", struct.pack(">I4s", 0, b"free")),
    ],
)
def test_a_broken_atom_is_damage(broken: bytes) -> None:
    with pytest.raises(TagError) as raised:
        read_atoms(io.BytesIO(broken))
    assert raised.value.kind is FailureKind.DAMAGED


def test_the_last_atom_may_end_with_the_file() -> None:
    (found,) = read_atoms(io.BytesIO(struct.pack(">I4s", 0, b"mdat") + b"sound"))
    assert (found.start, found.stop, found.header_bytes) == (0, 13, 8)
    assert build_atom(b"free", b"x") == b"\0\0\0\x09freex"
