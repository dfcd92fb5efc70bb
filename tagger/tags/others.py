"""What else is in a file: all but our fields, as text to compare before a file is replaced."""

from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from tagger.tags.opening import opened

OtherFields = dict[str, str]
"""Everything but our fields by name: items of the tag, pictures, chapters, chunks, the sound."""


def other_fields(path: Path) -> OtherFields:
    """Return all that a file holds beside our fields; compare two to find a difference.

    Every byte counts but those that have to change: the sizes and places of things, padding.
    Raises TagError, AccessError.
    """
    with opened(path, "rb", "cannot read the tags") as (file, tag):
        found: OtherFields = {}
        seen: Counter[str] = Counter()
        for item in tag.items:
            name = tag.codec.name_of(item)
            if name not in tag.codec.fields:
                seen[name] += 1
                key = f"{name} ({seen[name]})" if seen[name] > 1 else name
                found[key] = sha256(item).hexdigest()
        for name, content in tag.rest(file):
            found[name] = content
        return found


def lost_fields(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Name the fields that differ."""
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name)]
