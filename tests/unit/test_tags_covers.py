"""A cover picture of 40 MB: kept, or refused with a reason; FLAC cannot hold one at all."""

import base64
import struct
from pathlib import Path

import pytest

from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags, write_raw, write_tags
from tests.builders import audio_bytes
from tests.unit.test_tags_ape import item, tag
from tests.unit.test_tags_asf import extension, listed, long, wma
from tests.unit.test_tags_id3 import frame, sound
from tests.unit.test_tags_id3 import tag as id3_tag
from tests.unit.test_tags_mp4 import atom, data, with_items
from tests.unit.test_tags_vorbis import comments, with_comments

COVER = b"\x89PNG" + bytes(range(256)) * (40 * 4096)
TAGS = Tags(("Jazz",), ("Jazz",), "Jazz=1.0", "m")


def large(ending: str) -> bytes:
    picture = struct.pack(">II", 3, 0) + bytes(20) + struct.pack(">I", len(COVER)) + COVER
    if ending == ".mp3":
        return id3_tag(4, frame(4, b"APIC", b"\0image/png\0\3\0" + COVER)) + sound()
    if ending == ".m4a":
        return with_items(atom(b"covr", data(14, COVER)))
    if ending == ".ogg":
        comment = b"METADATA_BLOCK_PICTURE=" + base64.b64encode(picture)
        return with_comments(".opus", comments(comment))
    if ending == ".wma":
        return wma(
            extension(
                listed(
                    bytes.fromhex("941c23449894d149a1411d134e457054"),
                    [long("WM/Picture", 1, COVER)],
                )
            )
        )
    return audio_bytes(ending) + tag(item(b"Cover Art (Front)", b"a.png\0" + COVER, 2))


@pytest.mark.parametrize(
    "ending",
    [
        ".mp3",
        ".m4a",
        *(pytest.param(each, marks=pytest.mark.slow) for each in (".ogg", ".wma", ".ape")),
    ],
)
def test_a_large_cover_stays(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"song{ending}"
    path.write_bytes(large(ending))
    before = read_other_fields(path)
    write_tags(path, TAGS)
    assert read_tags(path) == TAGS
    assert read_other_fields(path) == before
    write_raw(path, Tags())
    assert read_tags(path) == Tags()
    assert read_other_fields(path) == before
