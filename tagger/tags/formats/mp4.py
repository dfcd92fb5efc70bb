"""MP4 files: the items of moov.udta.meta.ilst, and all other atoms (ISO/IEC 14496-12).

mutagen finds the atoms, puts a new ilst in the place of the old one and corrects the tables of
where the sound is. Its way with the items would be to parse them all and to write some otherwise.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, BinaryIO

from mutagen.id3 import TCON
from mutagen.mp4 import Atom, AtomDataType, Atoms, MP4Tags
from mutagen.mp4._atom import AtomError

from tagger.errors import TagError
from tagger.tags.items import Codec, Rest, Tag, Values
from tagger.tags.regions import digest, read_at, splice

ILST = (b"moov", b"udta", b"meta", b"ilst")
PLACE_OF_FREE = "moov.udta.meta.free"
NEW_HDLR = bytes(8) + b"mdirappl" + bytes(9)
"""What mutagen puts beside a new ilst."""
FREEFORM, NUMBER = b"----", b"gnre"
UTF16 = 2
TABLES = {b"stco": ">I", b"co64": ">Q"}
TABLE_HEAD = 16
BASE_OFFSET = 1
MUTAGEN: Any = MP4Tags()
FRAGMENTED = "it is a fragmented MP4; ffmpeg -i OLD -c copy NEW makes one that can be tagged"
UNFIT = "the atoms of its MP4 do not fit into one another; ffmpeg -i OLD -c copy NEW may mend it"


def open_mp4(file: BinaryIO) -> Tag:
    atoms = _atoms(file)
    if (b"moov",) not in atoms:
        raise TagError("it holds no MP4 sound, whatever its name says")
    items = atoms[ILST].children if ILST in atoms else []
    fits = all(map(_fits, atoms.atoms)) and _tables_fit(file, atoms)
    refusal = "" if fits else UNFIT
    if _has_places_unknown_to_mutagen(file, atoms):
        refusal = FRAGMENTED
    return Tag(CODEC, tuple(_whole(file, item) for item in items), _save, _rest, refusal=refusal)


def _atoms(file: BinaryIO) -> Any:
    file.seek(0)
    try:
        return Atoms(file)
    except AtomError as error:
        raise TagError(f"{UNFIT} ({error})") from error


def _fits(atom: Any) -> bool:
    """Tell whether the atoms in this one end where it does."""
    if not atom.children:
        return True
    last = atom.children[-1]
    return last.offset + last.length == atom.offset + atom.length and all(map(_fits, atom.children))


def _tables_fit(file: BinaryIO, atoms: Any) -> bool:
    """Tell whether each table of offsets is as long as it says: mutagen moves no others back."""
    for name, layout in TABLES.items():
        for atom in atoms[b"moov"].findall(name, recursive=True):
            count = int.from_bytes(read_at(file, atom.offset + 12, 4), "big")
            if atom.length != TABLE_HEAD + count * struct.calcsize(layout):
                return False
    return True


def _whole(file: BinaryIO, atom: Any) -> bytes:
    return read_at(file, atom.offset, atom.length)


def _has_places_unknown_to_mutagen(file: BinaryIO, atoms: Any) -> bool:
    """Tell whether the file has offsets that mutagen does not correct when its head grows."""
    names = [atom.name for atom in atoms.atoms]
    later = [atom for atom in atoms.atoms if atom.name == b"moof"][1:]
    heads = (head for moof in later for head in moof.findall(b"tfhd", True))
    unsized = read_at(file, atoms[b"moov"].offset, 4) == bytes(4)
    return b"mfra" in names or unsized or any(_base_of(_whole(file, head)) for head in heads)


def _base_of(head: bytes) -> int:
    """Return the offset in a tfhd atom, 0 where it has none."""
    flags = int.from_bytes(head[9:12], "big")
    return int.from_bytes(head[16:24], "big") if flags & BASE_OFFSET else 0


def _save(file: BinaryIO, items: Sequence[bytes]) -> None:
    atoms = _atoms(file)
    if items or ILST in atoms:
        content = Atom.render(b"ilst", b"".join(items))
        MUTAGEN._MP4Tags__save(file, atoms, content, None)  # noqa: SLF001 - nothing public does it
    if not items:
        _take_out_empty(file)


def _take_out_empty(file: BinaryIO) -> None:
    """Remove the meta atom if it holds no more than mutagen puts into a file that has none."""
    atoms = _atoms(file)
    path = atoms.path(*ILST[:-1]) if ILST in atoms else []
    if not path or not all(_is_empty(file, atom) for atom in path[-1].children):
        return
    gone = path.pop()
    if len(path[-1].children) == 1:
        gone = path.pop()
    splice(file, gone.offset, gone.offset + gone.length, b"")
    MUTAGEN._MP4Tags__update_parents(file, path, -gone.length)  # noqa: SLF001
    MUTAGEN._MP4Tags__update_offsets(file, atoms, -gone.length, gone.offset)  # noqa: SLF001


def _is_empty(file: BinaryIO, atom: Any) -> bool:
    if atom.name == b"hdlr":
        return _whole(file, atom)[8:] == NEW_HDLR
    return atom.name == b"free" or (atom.name == b"ilst" and not atom.children)


def _rest(file: BinaryIO) -> Rest:
    """Tell all atoms but our ilst and the free space beside it, each as its bytes.

    An offset counts as the atom that it points into and the place in there.
    """
    atoms = _atoms(file)
    starts = [atom.offset for atom in atoms.atoms]
    ilst = atoms[ILST] if ILST in atoms else None  # noqa: SIM401 - Atoms has no get
    seen: dict[str, int] = {}
    for path, atom in _leaves(atoms.atoms, ilst):
        number = seen[path] = seen.get(path, -1) + 1
        data = atom._dataoffset  # noqa: SLF001
        content = digest(file, data, atom.offset + atom.length)
        if atom.name in TABLES or (atom.name == b"tfhd" and _base_of(_whole(file, atom))):
            content = _places(_whole(file, atom), atom.name, starts)
        elif path == "moov.udta.meta.hdlr" and _whole(file, atom)[8:] == NEW_HDLR:
            continue
        yield f"{path} ({number})" if number else path, content
    last = atoms.atoms[-1]
    yield "what stands behind the atoms", read_at(file, last.offset + last.length, 8).hex()


def _leaves(atoms: list[Any], ilst: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for atom in atoms:
        path = above + atom.name.decode("latin-1")
        if atom is ilst or path == PLACE_OF_FREE:
            continue
        if atom.children is None:
            yield path, atom
        else:
            yield from _leaves(atom.children, ilst, f"{path}.")


def _places(atom: bytes, name: bytes, starts: list[int]) -> str:
    """Return a digest of the offsets in an atom, each told from where its top atom starts."""
    if name == b"tfhd":
        offsets = [_base_of(atom)]
        found = sha256(atom[8:16] + atom[24:])
    else:
        offsets = [offset for (offset,) in struct.iter_unpack(TABLES[name], atom[16:])]
        found = sha256(atom[8:16])
    for offset in offsets:
        number = bisect_right(starts, offset) - 1
        found.update(f"{number} {offset - starts[number]} ".encode())
    return found.hexdigest()


def _name_of(item: bytes) -> str:
    name = item[4:8]
    if name == NUMBER:
        return CODEC.genre
    if name != FREEFORM:
        return name.decode("latin-1")
    parts = dict(_children(item))
    mean, name = parts.get(b"mean", b"")[4:], parts.get(b"name", b"")[4:]
    return b":".join((FREEFORM, mean, name)).decode("utf-8", "backslashreplace")


def _children(item: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and the contents of the atoms in an item, as far as they can be told."""
    position = 8
    while position + 8 <= len(item):
        size, name = struct.unpack_from(">I4s", item, position)
        if size < 8:  # noqa: PLR2004 - the head alone
            return
        yield name, item[position + 8 : position + size]
        position += size


def _texts_of(item: bytes) -> Values:
    texts: list[str] = []
    for data in (content for name, content in _children(item) if name == b"data"):
        kind, value = int.from_bytes(data[1:4], "big"), data[8:]
        if item[4:8] == NUMBER:
            number = int.from_bytes(value, "big")
            texts += TCON(text=[str(number - 1)]).genres if number else []
        else:
            texts.append(value.decode("utf-16-be" if kind == UTF16 else "utf-8", "replace"))
    return tuple(texts)


def _items_for(name: str, values: Values) -> list[bytes]:
    data = [
        Atom.render(b"data", struct.pack(">II", AtomDataType.UTF8, 0) + value.encode())
        for value in values
    ]
    if not name.startswith("----"):
        return [Atom.render(name.encode("latin-1"), b"".join(data))] if values else []
    _, mean, own = name.encode().split(b":")
    head = Atom.render(b"mean", bytes(4) + mean) + Atom.render(b"name", bytes(4) + own)
    return [Atom.render(FREEFORM, head + b"".join(data))] if values else []


OURS = "----:com.apple.iTunes:TAGGER"
CODEC = Codec(
    "\xa9gen",
    f"{OURS}_SCORES",
    f"{OURS}_MODEL",
    f"{OURS}_GENRE",
    _name_of,
    _texts_of,
    _items_for,
    artists=("aART", "\xa9ART"),
    album="\xa9alb",
    compilation="cpil",
)
