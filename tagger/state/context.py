"""What the tracks of the library say about each other, by album and by artist."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tagger.paths import AnyPath
from tagger.records import Score, Tags
from tagger.state.schema import MOVED_AWAY, scores_from_json, tags_from_json

PAGE_ROWS = 1000

SELECT_MEMBERS = """
SELECT album, artist, labels, scores FROM temp.context
LEFT JOIN scores ON scores.track_id = context.track_id AND model = ? AND windows = ?
"""


class ContextMember(NamedTuple):
    """A track as a member of its album and its artist. Empty keys: it is a member of none.

    labels: those labels of the model that a person gave the track as its genre.
    """

    album: bytes
    artist: bytes
    labels: tuple[str, ...] = ()


class ScoredMember(NamedTuple):
    """A member with the scores of the track; None where no model has listened to it."""

    member: ContextMember
    scores: tuple[Score, ...] | None


class ContextTable:
    """The members of all albums and artists. It lies on disk and ends with the run."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def add_found(self, paths: Iterable[AnyPath]) -> None:
        """Note that the crawl of this run found these files."""
        rows = ((os.fsencode(path),) for path in paths)
        self._db.executemany("INSERT OR IGNORE INTO temp.found VALUES (?)", rows)

    def fill(
        self,
        make_member: Callable[[bytes, Tags], ContextMember | None],
        is_gone: Callable[[bytes], bool],
    ) -> None:
        """Make the members of all known tracks anew. make_member: from the path and the tags.

        is_gone: whether a file that the crawl did not find was deleted. Such a track is no member.
        A page at a time is read, so that memory does not grow with the library.
        """
        self._db.execute("DELETE FROM temp.context")
        last = 0
        while rows := self._db.execute(
            "SELECT id, path, tags, path IN temp.found FROM tracks"
            " WHERE id > ? AND tags IS NOT NULL ORDER BY id LIMIT ?",
            (last, PAGE_ROWS),
        ).fetchall():
            members = [
                (number, member.album, member.artist, json.dumps(member.labels))
                for number, path, tags, is_found in rows
                if not path.startswith(MOVED_AWAY)
                and (is_found or not is_gone(path))
                and (member := make_member(path, tags_from_json(tags)))
            ]
            self._db.executemany("INSERT INTO temp.context VALUES (?, ?, ?, ?)", members)
            last = rows[-1][0]

    def list_artists(self, album: bytes) -> list[bytes]:
        """Return the artist of each member of an album."""
        rows = self._db.execute("SELECT artist FROM temp.context WHERE album = ?", (album,))
        return [artist for (artist,) in rows]

    def list_album(self, album: bytes, *, model: str, windows: int) -> Iterator[ScoredMember]:
        """Yield the members of an album, with the scores of `model` over these windows."""
        return self._select("WHERE album = ?", model, windows, album)

    def list_artist(self, artist: bytes, *, model: str, windows: int) -> Iterator[ScoredMember]:
        """Yield the members of an artist, with the scores of `model` over these windows."""
        return self._select("WHERE artist = ?", model, windows, artist)

    def _select(self, condition: str, *values: object) -> Iterator[ScoredMember]:
        rows = self._db.execute(f"{SELECT_MEMBERS} {condition} ORDER BY context.track_id", values)
        for album, artist, labels, scores in rows:
            member = ContextMember(album, artist, tuple(json.loads(labels)))
            yield ScoredMember(member, scores_from_json(scores) if scores else None)


def make_album_key(path: bytes, title: str) -> bytes:
    """Return the key of the album with this title in the folder of a file."""
    folder = os.path.dirname(path)  # noqa: PTH120 - of bytes
    return folder + b"\0" + title.encode("utf-8", "surrogatepass")
