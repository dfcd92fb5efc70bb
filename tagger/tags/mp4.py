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
from tagger.tags.tag import NamedParts, Tag, TagCodec, Values, hash_range, read_at, splice

ILST_PATH = (b"moov", b"udta", b"meta", b"ilst")
FREE_ATOM_PATH = "moov.udta.meta.free"
NEW_HANDLER = bytes(8) + b"mdirappl" + bytes(9)
"""What mutagen puts beside a new ilst."""
FREEFORM, GENRE_NUMBER = b"----", b"gnre"
UTF16_DATA = 2
OFFSET_TABLES = {b"stco": ">I", b"co64": ">Q"}
TABLE_HEADER_BYTES = 16
BASE_OFFSET_FLAG = 1
MUTAGEN: Any = MP4Tags()
FRAGMENTED = "it is a fragmented MP4; ffmpeg -i OLD -c copy NEW makes one that can be tagged"
INCONSISTENT_ATOMS = (
    "the atoms of its MP4 do not fit into one another; ffmpeg -i OLD -c copy NEW may mend it"
)


def open_mp4(file: BinaryIO) -> Tag:
    atoms = _read_atoms(file)
    if (b"moov",) not in atoms:
        raise TagError("it holds no MP4 sound, whatever its name says")
    items = atoms[ILST_PATH].children if ILST_PATH in atoms else []
    fits = all(map(_is_consistent, atoms.atoms)) and _are_tables_consistent(file, atoms)
    refusal = "" if fits else INCONSISTENT_ATOMS
    if _has_unhandled_offsets(file, atoms):
        refusal = FRAGMENTED
    return Tag(
        MP4_CODEC,
        tuple(_read_atom(file, item) for item in items),
        _save_items,
        _name_other_atoms,
        refusal=refusal,
    )


def _read_atoms(file: BinaryIO) -> Any:
    file.seek(0)
    try:
        return Atoms(file)
    except AtomError as error:
        raise TagError(f"{INCONSISTENT_ATOMS} ({error})") from error


def _is_consistent(atom: Any) -> bool:
    """Tell whether the atoms in this one end where it does."""
    if not atom.children:
        return True
    last = atom.children[-1]
    return last.offset + last.length == atom.offset + atom.length and all(
        map(_is_consistent, atom.children)
    )


def _are_tables_consistent(file: BinaryIO, atoms: Any) -> bool:
    """Tell whether each table of offsets is as long as it says: mutagen moves no others back."""
    for name, layout in OFFSET_TABLES.items():
        for atom in atoms[b"moov"].findall(name, recursive=True):
            count = int.from_bytes(read_at(file, atom.offset + 12, 4), "big")
            if atom.length != TABLE_HEADER_BYTES + count * struct.calcsize(layout):
                return False
    return True


def _read_atom(file: BinaryIO, atom: Any) -> bytes:
    return read_at(file, atom.offset, atom.length)


def _has_unhandled_offsets(file: BinaryIO, atoms: Any) -> bool:
    """Tell whether the file has offsets that mutagen does not correct when its head grows."""
    names = [atom.name for atom in atoms.atoms]
    later = [atom for atom in atoms.atoms if atom.name == b"moof"][1:]
    heads = (head for moof in later for head in moof.findall(b"tfhd", True))
    unsized = read_at(file, atoms[b"moov"].offset, 4) == bytes(4)
    return (
        b"mfra" in names
        or unsized
        or any(_get_base_offset(_read_atom(file, head)) for head in heads)
    )


def _get_base_offset(head: bytes) -> int:
    """Return the offset in a tfhd atom, 0 where it has none."""
    flags = int.from_bytes(head[9:12], "big")
    return int.from_bytes(head[16:24], "big") if flags & BASE_OFFSET_FLAG else 0


def _save_items(file: BinaryIO, items: Sequence[bytes]) -> None:
    atoms = _read_atoms(file)
    if items or ILST_PATH in atoms:
        content = Atom.render(b"ilst", b"".join(items))
        MUTAGEN._MP4Tags__save(file, atoms, content, None)  # noqa: SLF001 - nothing public does it
    if not items:
        _remove_empty_meta(file)


def _remove_empty_meta(file: BinaryIO) -> None:
    """Remove the meta atom if it holds no more than mutagen puts into a file that has none."""
    atoms = _read_atoms(file)
    path = atoms.path(*ILST_PATH[:-1]) if ILST_PATH in atoms else []
    if not path or not all(_is_empty_atom(file, atom) for atom in path[-1].children):
        return
    gone = path.pop()
    if len(path[-1].children) == 1:
        gone = path.pop()
    splice(file, gone.offset, gone.offset + gone.length, b"")
    MUTAGEN._MP4Tags__update_parents(file, path, -gone.length)  # noqa: SLF001
    MUTAGEN._MP4Tags__update_offsets(file, atoms, -gone.length, gone.offset)  # noqa: SLF001


def _is_empty_atom(file: BinaryIO, atom: Any) -> bool:
    if atom.name == b"hdlr":
        return _read_atom(file, atom)[8:] == NEW_HANDLER
    return atom.name == b"free" or (atom.name == b"ilst" and not atom.children)


def _name_other_atoms(file: BinaryIO) -> NamedParts:
    """Tell all atoms but our ilst and the free space beside it, each as its bytes.

    An offset counts as the atom that it points into and the place in there.
    """
    atoms = _read_atoms(file)
    starts = [atom.offset for atom in atoms.atoms]
    ilst = atoms[ILST_PATH] if ILST_PATH in atoms else None  # noqa: SIM401 - Atoms has no get
    seen: dict[str, int] = {}
    for path, atom in _walk_leaves(atoms.atoms, ilst):
        number = seen[path] = seen.get(path, -1) + 1
        data = atom._dataoffset  # noqa: SLF001
        content = hash_range(file, data, atom.offset + atom.length)
        if atom.name in OFFSET_TABLES or (
            atom.name == b"tfhd" and _get_base_offset(_read_atom(file, atom))
        ):
            content = _hash_offsets(_read_atom(file, atom), atom.name, starts)
        elif path == "moov.udta.meta.hdlr" and _read_atom(file, atom)[8:] == NEW_HANDLER:
            continue
        yield f"{path} ({number})" if number else path, content
    last = atoms.atoms[-1]
    yield "what stands behind the atoms", read_at(file, last.offset + last.length, 8).hex()


def _walk_leaves(atoms: list[Any], ilst: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for atom in atoms:
        path = above + atom.name.decode("latin-1")
        if atom is ilst or path == FREE_ATOM_PATH:
            continue
        if atom.children is None:
            yield path, atom
        else:
            yield from _walk_leaves(atom.children, ilst, f"{path}.")


def _hash_offsets(atom: bytes, name: bytes, starts: list[int]) -> str:
    """Return a digest of the offsets in an atom, each told from where its top atom starts."""
    if name == b"tfhd":
        offsets = [_get_base_offset(atom)]
        found = sha256(atom[8:16] + atom[24:])
    else:
        offsets = [offset for (offset,) in struct.iter_unpack(OFFSET_TABLES[name], atom[16:])]
        found = sha256(atom[8:16])
    for offset in offsets:
        number = bisect_right(starts, offset) - 1
        found.update(f"{number} {offset - starts[number]} ".encode())
    return found.hexdigest()


def _get_mp4_name(item: bytes) -> str:
    name = item[4:8]
    if name == GENRE_NUMBER:
        return MP4_CODEC.genre
    if name != FREEFORM:
        return name.decode("latin-1")
    parts = dict(_split_children(item))
    mean, name = parts.get(b"mean", b"")[4:], parts.get(b"name", b"")[4:]
    return b":".join((FREEFORM, mean, name)).decode("utf-8", "backslashreplace")


def _split_children(item: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and the contents of the atoms in an item, as far as they can be told."""
    position = 8
    while position + 8 <= len(item):
        size, name = struct.unpack_from(">I4s", item, position)
        if size < 8:  # noqa: PLR2004 - the head alone
            return
        yield name, item[position + 8 : position + size]
        position += size


def _decode_mp4_item(item: bytes) -> Values:
    texts: list[str] = []
    for data in (content for name, content in _split_children(item) if name == b"data"):
        kind, value = int.from_bytes(data[1:4], "big"), data[8:]
        if item[4:8] == GENRE_NUMBER:
            number = int.from_bytes(value, "big")
            texts += TCON(text=[str(number - 1)]).genres if number else []
        else:
            texts.append(value.decode("utf-16-be" if kind == UTF16_DATA else "utf-8", "replace"))
    return tuple(texts)


def _make_mp4_items(name: str, values: Values) -> list[bytes]:
    data = [
        Atom.render(b"data", struct.pack(">II", AtomDataType.UTF8, 0) + value.encode())
        for value in values
    ]
    if not name.startswith("----"):
        return [Atom.render(name.encode("latin-1"), b"".join(data))] if values else []
    _, mean, own = name.encode().split(b":")
    head = Atom.render(b"mean", bytes(4) + mean) + Atom.render(b"name", bytes(4) + own)
    return [Atom.render(FREEFORM, head + b"".join(data))] if values else []


MP4_FIELD_PREFIX = "----:com.apple.iTunes:TAGGER"
MP4_CODEC = TagCodec(
    "\xa9gen",
    f"{MP4_FIELD_PREFIX}_SCORES",
    f"{MP4_FIELD_PREFIX}_MODEL",
    f"{MP4_FIELD_PREFIX}_GENRE",
    _get_mp4_name,
    _decode_mp4_item,
    _make_mp4_items,
    artists=("aART", "\xa9ART"),
    album="\xa9alb",
    compilation="cpil",
)
