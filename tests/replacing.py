"""Replace the tags of a file as a scan does, without a scan."""

from collections.abc import Mapping
from pathlib import Path

from tagger.audio import hash_streams
from tagger.records import TagChange, Tags, Track
from tagger.tags import read_other_fields, read_tags
from tagger.writing.replace import make_copy_name, replace_tags


def track_of(path: Path) -> Track:
    return Track.from_stat(path, path.lstat())


def everything_else(path: Path) -> Mapping[str, str]:
    """Return all that is in a file beside our fields."""
    return read_other_fields(path) | hash_streams(path)


def retag(path: Path, tags: Tags, *, preserve_mtime: bool = False, in_place: bool = False) -> Track:
    return replace_tags(
        change_of(track_of(path), tags),
        everything_else,
        preserve_mtime=preserve_mtime,
        in_place=in_place,
    )


def change_of(track: Track, tags: Tags) -> TagChange:
    return TagChange(track, Tags(), tags, make_copy_name(track))


def restore(path: Path, before: Tags) -> Track:
    """Put back the fields that the file had, to the letter."""
    track = track_of(path)
    change = TagChange(track, read_tags(path), before, make_copy_name(track), restores_raw=True)
    return replace_tags(change, everything_else)
