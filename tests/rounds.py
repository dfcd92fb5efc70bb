"""What every file has to bear: ours written, all else the same; undone, all as it was."""

from pathlib import Path

from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags, write_raw, write_tags

OURS = Tags(
    genres=("Hip-Hop", "Música & Söul"),
    written=("Hip-Hop", "Música & Söul"),
    scores="Hip-Hop=0.832;Electronic=0.051",
    model="musicnn",
)


def written_and_undone(path: Path, tags: Tags = OURS) -> tuple[bytes, bytes]:
    """Write and put back, looking at all that can be read; return the file's bytes after each."""
    before, others = read_tags(path), read_other_fields(path)
    write_tags(path, tags)
    assert read_tags(path) == tags
    assert read_other_fields(path) == others
    written = path.read_bytes()
    write_raw(path, before)
    after = read_tags(path)
    assert (after, after.raw) == (before, before.raw)
    assert read_other_fields(path) == others
    return written, path.read_bytes()
