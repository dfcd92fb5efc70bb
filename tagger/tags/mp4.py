"""MP4 files: the items in the atom moov.udta.meta.ilst, and all other atoms (ISO/IEC 14496-12).

The items are those of Apple's iTunes. mutagen would parse all of them and rewrite some, so the
atoms are read and written here. A longer ilst moves the sound if the sound stands behind it: then
the tables of offsets (stco, co64) and the base offset of a fragment (tfhd) are corrected.
"""

import re
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO

from mutagen import PaddingInfo
from mutagen.id3 import TCON

from tagger.errors import FailureKind, TagError
from tagger.paths import decode_foreign_bytes
from tagger.records import ExtraField
from tagger.tags.tag import (
    NamedParts,
    Tag,
    TagFormat,
    Values,
    get_size,
    hash_range,
    make_content_error,
    name_extra_fields,
    read_at,
    splice,
)

CONTAINERS = {
    b"moov", b"udta", b"trak", b"mdia", b"meta", b"ilst", b"stbl", b"minf", b"moof", b"traf",
}  # fmt: skip
"""The atoms that are read as lists of atoms. There are more, which hold nothing of interest."""
META_VERSION_BYTES = 4
"""A meta atom has a version before its atoms."""
ATOM_HEADER_BYTES, LONG_ATOM_HEADER_BYTES = 8, 16
LONG_SIZE, SIZE_TO_END = 1, 0
"""Sizes that mean: the size follows in 64 bits, or the atom ends with the file."""
MAX_SHORT_SIZE = (1 << 32) - 1

ILST_PATH = (b"moov", b"udta", b"meta", b"ilst")
FREE_ATOM_PATH = "moov.udta.meta.free"
NEW_HANDLER = bytes(8) + b"mdirappl" + bytes(9)
"""The content of the hdlr atom beside a new ilst: it says that the items are Apple's."""
FREEFORM, GENRE_NUMBER = b"----", b"gnre"
UTF8_DATA, UTF16_DATA = 1, 2
LIST_END, LIST_END_NAME = bytes(4), b"(end)"
"""A zero may stand behind the atoms of a udta (QuickTime File Format). It counts as an atom."""
KEYS_HEADER_BYTES = 16
GENRE_KEY = re.compile(r"(^|[:.])genre$", re.IGNORECASE)
"""A key or a freeform item with a genre, as `com.apple.quicktime.genre`."""
OFFSET_TABLES = {b"stco": ">I", b"co64": ">Q"}
TABLE_HEADER_BYTES = 16
TFHD_OFFSET_START, TFHD_OFFSET_BYTES = 16, 8
BASE_OFFSET_FLAG = 1
FRAGMENTED = "it is a fragmented MP4; ffmpeg -i OLD -c copy NEW makes one that can be tagged"
KEYED_ITEMS = (
    "its metadata is of QuickTime's kind (mdta), which has no place for a genre that players read;"
    " ffmpeg -i OLD -c copy NEW makes an MP4 that can be tagged"
)
NO_INDEX = (
    "its index (the atom moov) is missing: the file is cut off, or the program that made it was"
    " stopped before its end"
)
INCONSISTENT_ATOMS = (
    "the atoms of its MP4 do not fit into one another; ffmpeg -i OLD -c copy NEW may mend it"
)


@dataclass(frozen=True, slots=True)
class Atom:
    """An atom ("box" in the standard): where it is in the file, its header included.

    children: the atoms in it; None if it is not one of the CONTAINERS.
    """

    name: bytes
    start: int
    stop: int
    header_bytes: int
    children: tuple["Atom", ...] | None = None

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class OffsetTable:
    """Where offsets from the start of the file are stored, and the layout of each."""

    start: int
    stop: int
    layout: str


def read_atoms(file: BinaryIO) -> list[Atom]:
    """Return the atoms of a file. Raises TagError if they do not fit into one another."""
    atoms, position, end = [], 0, get_size(file)
    while position + ATOM_HEADER_BYTES <= end:
        atom, position = _read_atom(file, position, end)
        atoms.append(atom)
    return atoms


def _read_atom(file: BinaryIO, start: int, end: int | None = None) -> tuple[Atom, int]:
    """Return an atom and where the next one starts. end: of the file, for top-level atoms."""
    header = read_at(file, start, LONG_ATOM_HEADER_BYTES)
    if len(header) < ATOM_HEADER_BYTES:
        raise TagError(f"{INCONSISTENT_ATOMS} (truncated data)", FailureKind.DAMAGED)
    size, name = struct.unpack_from(">I4s", header)
    header_bytes = ATOM_HEADER_BYTES
    if size == LONG_SIZE and len(header) == LONG_ATOM_HEADER_BYTES:
        header_bytes, size = LONG_ATOM_HEADER_BYTES, int.from_bytes(header[8:], "big")
    elif size == SIZE_TO_END and end is not None:
        size = end - start
    if size < header_bytes:
        reason = f"{INCONSISTENT_ATOMS} (an atom has {size} bytes)"
        raise TagError(reason, FailureKind.DAMAGED)
    stop = start + size
    if name not in CONTAINERS:
        return Atom(name, start, stop, header_bytes), stop
    children = []
    position = start + header_bytes
    if name == b"meta" and read_at(file, position + 4, 4) != b"hdlr":  # QuickTime has no version
        position += META_VERSION_BYTES
    while position < stop:
        if name == b"udta" and _is_list_end(file, position, stop):
            child, position = Atom(LIST_END_NAME, position, stop, len(LIST_END)), stop
        else:
            child, position = _read_atom(file, position)
        children.append(child)
    return Atom(name, start, stop, header_bytes, tuple(children)), position


def _is_list_end(file: BinaryIO, start: int, stop: int) -> bool:
    return stop - start == len(LIST_END) and read_at(file, start, len(LIST_END)) == LIST_END


def find_atom_path(atoms: Sequence[Atom], names: Sequence[bytes]) -> list[Atom]:
    """Return the atoms with these names, each in the one before, as far as there are such atoms."""
    path: list[Atom] = []
    for name in names:
        inner = path[-1].children or () if path else atoms
        atom = next((atom for atom in inner if atom.name == name), None)
        if atom is None:
            break
        path.append(atom)
    return path


def _find_ilst(atoms: Sequence[Atom]) -> Atom | None:
    path = find_atom_path(atoms, ILST_PATH)
    return path[-1] if len(path) == len(ILST_PATH) else None


def _find_atoms(atom: Atom, name: bytes) -> Iterator[Atom]:
    """Yield all atoms with this name in an atom, at any depth."""
    for child in atom.children or ():
        if child.name == name:
            yield child
        yield from _find_atoms(child, name)


def build_atom(name: bytes, content: bytes) -> bytes:
    size = ATOM_HEADER_BYTES + len(content)
    if size > MAX_SHORT_SIZE:
        size += LONG_ATOM_HEADER_BYTES - ATOM_HEADER_BYTES
        return struct.pack(">I4sQ", LONG_SIZE, name, size) + content
    return struct.pack(">I4s", size, name) + content


def _read_whole_atom(file: BinaryIO, atom: Atom) -> bytes:
    return read_at(file, atom.start, atom.size)


def open_mp4(file: BinaryIO) -> Tag:
    atoms = read_atoms(file)
    if not find_atom_path(atoms, (b"moov",)):
        if find_atom_path(atoms, (b"ftyp",)):
            raise TagError(NO_INDEX, FailureKind.TRUNCATED)
        raise make_content_error("MP4 sound")
    (moov,) = find_atom_path(atoms, (b"moov",))
    ilst = _find_ilst(atoms)
    refusal = None
    if _has_unhandled_offsets(file, atoms, moov):
        refusal = TagError(FRAGMENTED)
    elif ilst and _read_keys(file, find_atom_path(atoms, ILST_PATH)[-2]):
        refusal = TagError(KEYED_ITEMS)
    elif not (all(map(_is_consistent, atoms)) and _are_tables_consistent(file, moov)):
        refusal = TagError(INCONSISTENT_ATOMS, FailureKind.DAMAGED)
    items = ilst.children or () if ilst else ()
    return Tag(
        MP4_FORMAT,
        tuple(_read_whole_atom(file, item) for item in items),
        save_mp4_items,
        _list_other_atoms,
        read_fallback_genres=_read_all_genres,
        refusal=refusal,
    )


def _read_all_genres(file: BinaryIO) -> Values:
    """Return the genres in all atoms where readers find one, of the movie and of its tracks."""
    genres: list[str] = []
    for moov in find_atom_path(read_atoms(file), (b"moov",)):
        for udta in _find_atoms(moov, b"udta"):
            for name in (b"\xa9gen", b"gnre"):
                for atom in find_atom_path([udta], (b"udta", name))[1:]:
                    genres += _decode_user_text(_read_whole_atom(file, atom))
        for meta in _find_atoms(moov, b"meta"):
            keys = _read_keys(file, meta)
            for ilst in find_atom_path([meta], (b"meta", b"ilst"))[1:]:
                for atom in ilst.children or ():
                    item = _read_whole_atom(file, atom)
                    key = keys.get(atom.name) or _get_mp4_name(item)
                    if key == MP4_FORMAT.genre or GENRE_KEY.search(key):
                        genres += _decode_mp4_item(item)
    return tuple(genres)


def _decode_user_text(atom: bytes) -> Values:
    """Return the text of a QuickTime atom (size, language, text), or of one as 3GPP has it."""
    if atom[ATOM_HEADER_BYTES + 4 : ATOM_HEADER_BYTES + 8] == b"data":
        return _decode_mp4_item(atom)
    content = atom[ATOM_HEADER_BYTES:]
    if atom[4:8] == GENRE_NUMBER:  # version and flags, language, text
        text = content[6:]
    else:
        text = content[4 : 4 + int.from_bytes(content[:2], "big")]
    if text.startswith(b"\xfe\xff"):
        return (text.decode("utf-16", "replace").rstrip("\0"),)
    return (decode_foreign_bytes(text.rstrip(b"\0")),)


def _read_keys(file: BinaryIO, meta: Atom) -> dict[bytes, str]:
    """Return the names of the items beside a keys atom (QuickTime metadata), by the items' own."""
    keys: dict[bytes, str] = {}
    for atom in find_atom_path([meta], (b"meta", b"keys"))[1:]:
        content = _read_whole_atom(file, atom)
        position = KEYS_HEADER_BYTES
        while position + ATOM_HEADER_BYTES <= len(content):
            size = max(int.from_bytes(content[position : position + 4], "big"), ATOM_HEADER_BYTES)
            name = content[position + ATOM_HEADER_BYTES : position + size]
            keys[struct.pack(">I", len(keys) + 1)] = name.decode("utf-8", "replace")
            position += size
    return keys


def _is_consistent(atom: Atom) -> bool:
    """Tell whether the atoms in this one end where it ends."""
    return not atom.children or (
        atom.children[-1].stop == atom.stop and all(map(_is_consistent, atom.children))
    )


def _are_tables_consistent(file: BinaryIO, moov: Atom) -> bool:
    """Tell whether each table of offsets is as long as it says; no other can be corrected."""
    for name, layout in OFFSET_TABLES.items():
        for table in _find_atoms(moov, name):
            count = int.from_bytes(read_at(file, table.start + 12, 4), "big")
            if table.size != TABLE_HEADER_BYTES + count * struct.calcsize(layout):
                return False
    return True


def _has_unhandled_offsets(file: BinaryIO, atoms: Sequence[Atom], moov: Atom) -> bool:
    """Tell whether the file has offsets that are not corrected when the sound moves.

    Those are the random access index (mfra), and base offsets behind the first fragment (moof). A
    moov that says only that it ends with the file cannot grow either.
    """
    later_fragments = [atom for atom in atoms if atom.name == b"moof"][1:]
    heads = (head for moof in later_fragments for head in _find_atoms(moof, b"tfhd"))
    is_unsized = read_at(file, moov.start, 4) == bytes(4)
    return (
        any(atom.name == b"mfra" for atom in atoms)
        or is_unsized
        or any(_get_base_offset(_read_whole_atom(file, head)) for head in heads)
    )


def _get_base_offset(tfhd: bytes) -> int:
    """Return the base offset in a tfhd atom, 0 if it has none."""
    flags = int.from_bytes(tfhd[9:12], "big")
    offset = tfhd[TFHD_OFFSET_START : TFHD_OFFSET_START + TFHD_OFFSET_BYTES]
    return int.from_bytes(offset, "big") if flags & BASE_OFFSET_FLAG else 0


def save_mp4_items(file: BinaryIO, items: Sequence[bytes]) -> None:
    """Replace the items of a file. The meta atom goes too if only tagger had a use for it."""
    atoms = read_atoms(file)
    path = find_atom_path(atoms, ILST_PATH)
    if len(path) == len(ILST_PATH):
        _replace_ilst(file, path, build_atom(b"ilst", b"".join(items)))
    elif items:
        _insert_ilst(file, path[:2], build_atom(b"ilst", b"".join(items)))
    if not items:
        _remove_empty_meta(file)


def _replace_ilst(file: BinaryIO, path: list[Atom], ilst: bytes) -> None:
    """Put an ilst and a free atom in place of the old ilst and a free atom beside it."""
    meta, old = path[-2:]
    siblings = meta.children or ()
    place = siblings.index(old)
    neighbours = [*siblings[max(place - 1, 0) : place], *siblings[place + 1 : place + 2]]
    free = next((atom for atom in neighbours if atom.name == b"free"), old)
    start, stop = min(old.start, free.start), max(old.stop, free.stop)
    room = stop - start - len(ilst) - ATOM_HEADER_BYTES
    new = ilst + _build_free_atom(room, get_size(file) - stop)
    _replace_bytes(file, path[:-1], start, stop, new)


def _insert_ilst(file: BinaryIO, path: list[Atom], ilst: bytes) -> None:
    """Put a meta atom with an ilst at the start of the udta atom, or of a moov without udta."""
    parent = path[-1]
    start = parent.start + parent.header_bytes
    content = bytes(META_VERSION_BYTES) + build_atom(b"hdlr", NEW_HANDLER) + ilst
    free = _build_free_atom(-len(content), get_size(file) - start)
    new = build_atom(b"meta", content + free)
    new = new if parent.name == b"udta" else build_atom(b"udta", new)
    _replace_bytes(file, path, start, start, new)


def _build_free_atom(room: int, following: int) -> bytes:
    padding = min(PaddingInfo(room, following).get_default_padding(), MAX_SHORT_SIZE)
    return build_atom(b"free", bytes(padding))


def _remove_empty_meta(file: BinaryIO) -> None:
    """Remove the meta atom if it contains only the empty atoms that tagger itself adds."""
    atoms = read_atoms(file)
    if not _find_ilst(atoms):
        return
    path = find_atom_path(atoms, ILST_PATH[:-1])
    if not all(_is_empty_atom(file, atom) for atom in path[-1].children or ()):
        return
    removed = path.pop()
    if len(path[-1].children or ()) == 1:
        removed = path.pop()
    _replace_bytes(file, path, removed.start, removed.stop, b"")


def _is_empty_atom(file: BinaryIO, atom: Atom) -> bool:
    if atom.name == b"hdlr":
        return _read_whole_atom(file, atom)[ATOM_HEADER_BYTES:] == NEW_HANDLER
    return atom.name == b"free" or (atom.name == b"ilst" and not atom.children)


def _replace_bytes(
    file: BinaryIO, parents: Sequence[Atom], start: int, stop: int, new: bytes
) -> None:
    """Replace a stretch in these parents; correct their sizes, and all offsets behind its start."""
    tables = list(_find_offset_tables(file))
    splice(file, start, stop, new)
    growth = start + len(new) - stop
    if not growth:
        return
    for parent in parents:
        is_long = parent.header_bytes == LONG_ATOM_HEADER_BYTES
        file.seek(parent.start + (ATOM_HEADER_BYTES if is_long else 0))
        file.write(struct.pack(">Q" if is_long else ">I", parent.size + growth))
    for table in tables:
        place = table.start + (growth if table.start > start else 0)
        content = read_at(file, place, table.stop - table.start)
        offsets = [offset for (offset,) in struct.iter_unpack(table.layout, content)]
        try:
            shifted = [
                struct.pack(table.layout, offset + growth if offset > start else offset)
                for offset in offsets
            ]
        except struct.error as error:
            raise TagError("the sound would move to where its MP4 cannot point at") from error
        file.seek(place)
        file.write(b"".join(shifted))


def _find_offset_tables(file: BinaryIO) -> Iterator[OffsetTable]:
    """Yield where the offsets of a file are: those to the sound, and that of the first fragment."""
    atoms = read_atoms(file)
    for moov in find_atom_path(atoms, (b"moov",)):
        for name, layout in OFFSET_TABLES.items():
            for atom in _find_atoms(moov, name):
                yield OffsetTable(atom.start + TABLE_HEADER_BYTES, atom.stop, layout)
    for moof in find_atom_path(atoms, (b"moof",)):
        for atom in _find_atoms(moof, b"tfhd"):
            if _get_base_offset(_read_whole_atom(file, atom)):
                start = atom.start + TFHD_OFFSET_START
                yield OffsetTable(start, start + TFHD_OFFSET_BYTES, ">Q")


def _list_other_atoms(file: BinaryIO) -> NamedParts:
    """List all atoms but the ilst and the free atom beside it, each with a digest of its content.

    An offset counts as the atom that it points into and the distance from the atom's start.
    """
    atoms = read_atoms(file)
    starts = [atom.start for atom in atoms]
    seen: dict[str, int] = {}
    for path, atom in _walk_leaves(atoms, _find_ilst(atoms)):
        number = seen[path] = seen.get(path, -1) + 1
        content = hash_range(file, atom.start + atom.header_bytes, atom.stop)
        if atom.name in OFFSET_TABLES or (
            atom.name == b"tfhd" and _get_base_offset(_read_whole_atom(file, atom))
        ):
            content = _hash_offsets(_read_whole_atom(file, atom), atom.name, starts)
        elif path == "moov.udta.meta.hdlr" and _is_empty_atom(file, atom):
            continue
        yield f"{path} ({number})" if number else path, content
    yield "the bytes behind the atoms", read_at(file, atoms[-1].stop, 8).hex()


def _walk_leaves(
    atoms: Sequence[Atom], ilst: Atom | None, above: str = ""
) -> Iterator[tuple[str, Atom]]:
    """Yield each atom that is no container, and the names on the way to it."""
    for atom in atoms:
        path = above + atom.name.decode("latin-1")
        if atom is ilst or path == FREE_ATOM_PATH:
            continue
        if atom.children is None:
            yield path, atom
        else:
            yield from _walk_leaves(atom.children, ilst, f"{path}.")


def _hash_offsets(atom: bytes, name: bytes, starts: Sequence[int]) -> str:
    """Return a digest of an atom in which offsets count from the start of their top-level atom."""
    if name == b"tfhd":
        offsets = [_get_base_offset(atom)]
        digest = sha256(atom[8:16] + atom[24:])
    else:
        offsets = [offset for (offset,) in struct.iter_unpack(OFFSET_TABLES[name], atom[16:])]
        digest = sha256(atom[8:16])
    for offset in offsets:
        number = bisect_right(starts, offset) - 1
        digest.update(f"{number} {offset - starts[number]} ".encode())
    return digest.hexdigest()


def _get_mp4_name(item: bytes) -> str:
    name = item[4:8]
    if name == GENRE_NUMBER:
        return MP4_FORMAT.genre
    if name != FREEFORM:
        return name.decode("latin-1")
    parts = dict(_split_item(item))
    mean, name = parts.get(b"mean", b"")[4:], parts.get(b"name", b"")[4:]
    full_name = b":".join((FREEFORM, mean, name)).decode("utf-8", "backslashreplace")
    return MP4_FREE_NAMES.get(full_name.casefold(), full_name)


def _split_item(item: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the names and contents of the atoms in an item, up to the first broken one."""
    position = ATOM_HEADER_BYTES
    while position + ATOM_HEADER_BYTES <= len(item):
        size, name = struct.unpack_from(">I4s", item, position)
        if size < ATOM_HEADER_BYTES:
            return
        yield name, item[position + ATOM_HEADER_BYTES : position + size]
        position += size


def _decode_mp4_item(item: bytes) -> Values:
    texts: list[str] = []
    for data in (content for name, content in _split_item(item) if name == b"data"):
        kind, value = int.from_bytes(data[1:4], "big"), data[8:]
        if item[4:8] == GENRE_NUMBER:
            number = int.from_bytes(value, "big")
            texts += TCON(text=[str(number - 1)]).genres if number else []
        else:
            texts.append(value.decode("utf-16-be" if kind == UTF16_DATA else "utf-8", "replace"))
    return tuple(texts)


def _encode_mp4_field(name: str, values: Values) -> list[bytes]:
    if not values:
        return []
    data = b"".join(
        build_atom(b"data", struct.pack(">II", UTF8_DATA, 0) + value.encode()) for value in values
    )
    if not name.startswith("----"):
        return [build_atom(name.encode("latin-1"), data)]
    _, mean, own_name = name.encode().split(b":")
    head = build_atom(b"mean", bytes(4) + mean) + build_atom(b"name", bytes(4) + own_name)
    return [build_atom(FREEFORM, head + data)]


ITUNES_PREFIX = "----:com.apple.iTunes:"
MP4_FIELD_PREFIX = f"{ITUNES_PREFIX}TAGGER"
MP4_FORMAT = TagFormat(
    "\xa9gen",
    f"{MP4_FIELD_PREFIX}_SCORES",
    f"{MP4_FIELD_PREFIX}_MODEL",
    f"{MP4_FIELD_PREFIX}_GENRE",
    _get_mp4_name,
    _decode_mp4_item,
    _encode_mp4_field,
    extras=name_extra_fields(
        {
            ExtraField.STYLE: f"{ITUNES_PREFIX}STYLE",
            ExtraField.GROUPING: "\xa9grp",
            ExtraField.MOOD: f"{ITUNES_PREFIX}MOOD",
            ExtraField.VOICE: f"{ITUNES_PREFIX}VOICE",
        },
        f"{MP4_FIELD_PREFIX}_{{}}",
    ),
    artists=("aART", "\xa9ART"),
    album="\xa9alb",
    compilation="cpil",
)
MP4_FREE_NAMES = {
    name.casefold(): name
    for each in MP4_FORMAT.extras.values()
    for name in (each.values, each.written)
}
"""Names of extra fields, which some programs write in another case of letters."""
