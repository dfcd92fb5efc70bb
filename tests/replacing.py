"""Replace the tags of a file as a scan does, without a scan."""

from collections.abc import Mapping
from pathlib import Path

from tagger.audio import hash_streams, read_metadata
from tagger.records import TagChange, Tags, Track
from tagger.tags import read_other_fields, read_tags
from tagger.writing.replace import make_copy_name, replace_tags


def make_track(path: Path) -> Track:
    return Track.from_stat(path, path.lstat())


def inspect_file(path: Path) -> Mapping[str, str]:
    """Return all content of a file except tagger's fields."""
    sound = hash_streams(path, bytes_compared=True)
    return read_other_fields(path) | sound | read_metadata(path)


def make_change(track: Track, tags: Tags) -> TagChange:
    return TagChange(track, read_tags(Path(track.path)), tags, make_copy_name(track))


def retag(path: Path, tags: Tags, *, preserve_mtime: bool = False, in_place: bool = False) -> Track:
    return replace_tags(
        make_change(make_track(path), tags),
        inspect_file,
        preserve_mtime=preserve_mtime,
        in_place=in_place,
    )


def restore(path: Path, before: Tags) -> Track:
    """Put back the fields that the file had, exactly as they were stored."""
    track = make_track(path)
    change = TagChange(track, read_tags(path), before, make_copy_name(track), restores_raw=True)
    return replace_tags(change, inspect_file)
