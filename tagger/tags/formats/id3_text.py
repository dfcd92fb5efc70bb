"""The text of ID3 frames: which are ours, what they say, and new ones."""

import zlib
from functools import cache, partial

from mutagen.id3 import TCON, TXXX, Encoding

from tagger.tags.formats.id3 import HEAD, V2_2, V2_3, V2_4, rendered, synchronised
from tagger.tags.items import Codec, Values

TEXT_LIMIT = 1 << 16
"""No genre unfolds to more, but a few compressed bytes may hold gigabytes."""

OF_OLD = {"TCO": "TCON", "TXX": "TXXX", "TP1": "TPE1", "TP2": "TPE2", "TAL": "TALB", "TCP": "TCMP"}
ARTIST, ALBUM = "TPE1", "TALB"
WIDE = {1: "utf-16-le", 2: "utf-16-be"}
MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
NARROW = {0: "latin-1", 3: "utf-8"}


@cache
def codec(version: int) -> Codec:
    return Codec(
        "TCON",
        "TXXX:TAGGER_SCORES",
        "TXXX:TAGGER_MODEL",
        "TXXX:TAGGER_GENRE",
        name_of=partial(_name_of, version),
        texts_of=partial(_texts_of, version),
        items_for=partial(_frames_for, version),
        genre_names=_genre_names,
        artists=("TPE2", ARTIST),
        album=ALBUM,
        compilation="TCMP",
    )


def _name_of(version: int, frame: bytes) -> str:
    name = frame[: 3 if version == V2_2 else 4].rstrip(b" \0").decode("latin-1")
    name = OF_OLD.get(name, name)
    return f"TXXX:{''.join(_texts(version, frame)[:1])}" if name == "TXXX" else name


def _texts_of(version: int, frame: bytes) -> Values:
    own = _name_of(version, frame).startswith("TXXX")
    return tuple(_texts(version, frame)[own:])


def _texts(version: int, frame: bytes) -> list[str]:
    """Return the texts of a frame, none where they cannot be told."""
    data = _content(version, frame)
    if data[:1] in (b"\1", b"\2"):
        return _wide_texts(data[1:], data[0])
    if not data or data[0] not in NARROW:
        return []
    texts = data[1:].decode(NARROW[data[0]], "replace").split("\0")
    return texts if texts[-1] else texts[:-1]


def _wide_texts(data: bytes, encoding: int) -> list[str]:
    """Decode UTF-16, where each text may begin with a mark of its own."""
    units = [data[i : i + 2] for i in range(0, len(data) - 1, 2)]
    stops = [2 * i for i, unit in enumerate(units) if unit == b"\0\0"]
    texts, name, start = [], WIDE[encoding], 0
    for stop in [*stops, 2 * len(units)]:
        piece, start = data[start:stop], stop + 2
        name = MARKS.get(piece[:2], name)
        piece = piece[2:] if piece[:2] in MARKS else piece
        texts.append(piece.decode(name, "replace"))
    return texts if texts[-1] else texts[:-1]


def _content(version: int, frame: bytes) -> bytes:
    """Return what a frame holds, unfolded; nothing where it is encrypted or broken."""
    if version == V2_2:
        return frame[6:]
    flags, data = frame[9], frame[HEAD:]
    if version == V2_3:
        folded, secret, grouped, length, shifted = (flags & bit for bit in (128, 64, 32, 128, 0))
    else:
        folded, secret, grouped, length, shifted = (flags & bit for bit in (8, 4, 64, 1, 2))
    if secret:
        return b""
    data = data[(1 if grouped else 0) + (4 if length else 0) :]
    data = synchronised(data) if shifted else data
    if folded:
        try:
            data = zlib.decompressobj().decompress(data, TEXT_LIMIT)
        except zlib.error:
            return b""
    return data


def _frames_for(version: int, name: str, values: Values) -> list[bytes]:
    version = max(version, V2_3)  # nothing is written into 2.2
    kind, _, description = name.partition(":")
    # UTF-16 is the only Unicode that ID3v2.3 knows, and 2.4 prefers UTF-8.
    encoding = Encoding.UTF8 if version == V2_4 else Encoding.UTF16
    text = list(values)
    frame = (
        TXXX(encoding=encoding, desc=description, text=text)
        if kind == "TXXX"
        else TCON(encoding=encoding, text=text)
    )
    return [rendered(frame, version)] if values else []


def _genre_names(genres: Values) -> Values:
    """Return genres as names: ID3 also knows them by number, such as `17` or `(17)`."""
    return tuple(TCON(text=list(genres)).genres) if genres else ()
