"""The plugin `tagger` of beets: genre, style and mood into beets' database and into the files.

A scan of tagger decides on each track and writes into its file. So all that tagger promises holds:
existing genres stay, the journal has the old ones, the sound is verified. Then beets' database
takes over what the scan did. With `import.write: no` the scan is a dry run, and only the database
changes.
"""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from logging import Logger
from optparse import Values
from pathlib import Path

from beets import ui
from beets.importer import ImportSession, ImportTask
from beets.library import Album, Item, Library, ReadError
from beets.plugins import BeetsPlugin
from beets.util import displayable_path, plurality

import tagger
from tagger.tags import EXTENSIONS

EXTRA_FIELDS = {"style": "styles", "mood": "moods", "voice": "voices"}
"""A field of beets' database, and the field of an Outcome that it is filled with."""

WITH_GENRE = {tagger.Action.WRITTEN, tagger.Action.WOULD_WRITE, tagger.Action.UNCHANGED}
"""What a scan did with a track that has, or would have, a genre of tagger."""

WAYS_TO_PLACE_FILES = ("move", "copy", "link", "hardlink", "reflink")
"""With these options of an import, a file goes where `paths` of beets' config says."""


class TaggerPlugin(BeetsPlugin):
    """Adds `beet tagger`, and with `auto` listens to all that is imported."""

    def __init__(self) -> None:
        super().__init__()
        self.config.add({"auto": True, "force": False, "config": None})
        if self.config["auto"].get(bool):
            # The files are at their places then, and beets has written its tags.
            self.register_listener("import_task_files", self.tag_imported)

    def commands(self) -> list[ui.Subcommand]:
        command = ui.Subcommand("tagger", help="listen to tracks, and give them a genre")
        command.parser.add_option(
            "-p",
            "--pretend",
            action="store_true",
            help="show what would change, and change nothing",
        )
        command.parser.add_option(
            "-f", "--force", action="store_true", help="listen again, and replace what stands there"
        )
        command.func = self.tag_query
        return [command]

    def tag_query(self, library: Library, options: Values, query: list[str]) -> None:
        """Do `beet tagger QUERY`."""
        force = bool(options.force or self.config["force"].get(bool))
        write = ui.should_write() and not options.pretend
        try:
            settings = self.read_settings(write=write, force=force)
            scan = ItemScan(self._log, settings, force=force, pretend=bool(options.pretend))
            scan.run(library.items(query))
        except tagger.TaggerError as error:
            raise ui.UserError(str(error)) from error

    def tag_imported(self, session: ImportSession, task: ImportTask) -> None:
        """Listen to what was imported. An error is logged, and the import goes on."""
        items = task.imported_items()
        places = [item.destination() for item in items]
        force = self.config["force"].get(bool)
        try:
            settings = self.read_settings(write=ui.should_write(), force=force)
            ItemScan(self._log, settings, force=force, is_import=True).run(items)
        except tagger.TaggerError as error:
            self._log.error("no genre for {}: {}", displayable_path(task.paths), error)
        has_placed_files = any(session.config[way] for way in WAYS_TO_PLACE_FILES)
        for item, place in zip(items, places, strict=True):
            if has_placed_files and item.destination() != place:
                item.try_sync(write=False, move=True)  # the genre is a part of its path

    def read_settings(self, *, write: bool, force: bool) -> tagger.Settings:
        """Return the settings of tagger's config file, as they suit beets. Raises SettingsError."""
        config = self.config["config"]
        path = config.as_filename() if config.get() else None
        options: dict[str, object] = {}
        if not write:
            options |= {"dry_run": True, "hardlinks": "break"}  # no link is at risk
        if force:
            options |= {"force": True, "existing": "replace"}
        settings = tagger.read_settings(path, **options)
        return replace(settings, report=None, until=None)  # these are for the nightly run


@dataclass(frozen=True, slots=True)
class ItemScan:
    """A scan of the files of items, and what beets' database takes over from it.

    force: replace what stands there. pretend: show what would change, and change nothing.
    is_import: beets has just written these files, and prints no changes.
    """

    log: Logger
    settings: tagger.Settings
    force: bool = False
    pretend: bool = False
    is_import: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, items: Iterable[Item]) -> None:
        """Scan the files of the items, and update each item when its file is done.

        Raises TaggerError. What was done until then stays done.
        """
        by_path = {get_path(item).resolve(): item for item in items if self._is_wanted(item)}
        synced = {path for path, item in by_path.items() if self.is_import or is_synced(item)}

        def take_over(outcome: tagger.Outcome) -> None:
            path = Path(outcome.track.path)
            self._take_over(by_path[path], outcome, was_synced=path in synced)

        try:
            tagger.scan(by_path, self.settings, on_outcome=take_over)
        finally:
            if not self.pretend:
                give_albums_genres(by_path.values(), force=self.force)
        done = ", ".join(f"{count} {what}" for what, count in self.counts.items())
        self.log.info("{}", done or "nothing to do")

    def _is_wanted(self, item: Item) -> bool:
        """Tell whether the file of an item can be scanned, and beets' database leaves room."""
        path = get_path(item)
        if not path.is_file():
            self.log.warning("not there: {}", displayable_path(item.path))
            return False
        reason = ""
        if path.suffix.lower() not in EXTENSIONS:
            reason = "in a format that tagger does not know"
        elif path.is_symlink() and not (self.settings.dry_run or self.settings.follow_symlinks):
            reason = "behind a symbolic link"
        elif self.settings.existing != "replace" and has_genre_of_its_own(item):
            reason = "with a genre that only beets' database has"
        if reason:
            self.counts[f"left out {reason}"] += 1
            self.log.debug("left out {}: {}", reason, displayable_path(item.path))
        return not reason

    def _take_over(self, item: Item, outcome: tagger.Outcome, *, was_synced: bool) -> None:
        """Put into the database what the scan did with the file of an item."""
        self.counts[outcome.action] += 1
        if outcome.action is tagger.Action.FAILED:
            self.log.error("{}: {}", displayable_path(item.path), outcome.error)
            return
        if outcome.action in WITH_GENRE:
            self._take_over_genre(item, outcome)
        for name, values in EXTRA_FIELDS.items():
            value = ", ".join(getattr(outcome, values))
            if value and (self.force or not item.get(name, with_album=False)):
                item[name] = value
        if not self.is_import:
            ui.show_model_changes(item, fields=[get_genre_field(), *EXTRA_FIELDS])
        if not self.pretend:
            if was_synced and outcome.action is tagger.Action.WRITTEN:
                item.mtime = item.current_mtime()
            item.store()

    def _take_over_genre(self, item: Item, outcome: tagger.Outcome) -> None:
        if outcome.action is tagger.Action.WOULD_WRITE:
            before = get_genres(item) if self.settings.existing == "append" else []
            set_genres(item, list(dict.fromkeys([*before, *outcome.genres])))
            return
        try:
            in_file = Item.from_path(item.path)  # as beets reads it: `beet write` changes nothing
        except ReadError as error:
            self.log.warning("{}", error)
            return
        set_genres(item, get_genres(in_file))
        if self.settings.styles == "grouping":
            item["grouping"] = in_file["grouping"]


def get_path(item: Item) -> Path:
    return Path(os.fsdecode(item.path))


def is_synced(item: Item) -> bool:
    """Tell whether nobody has changed the file since beets wrote or read it, nor the database."""
    return bool(item.mtime >= item.current_mtime())


def has_genre_of_its_own(item: Item) -> bool:
    """Tell whether a genre stands in the database that nobody has written into the file."""
    genres = get_genres(item)
    if not genres or is_synced(item):
        return False
    try:
        return get_genres(Item.from_path(item.path)) != genres
    except ReadError:
        return False  # the scan says why


def give_albums_genres(items: Iterable[Item], *, force: bool) -> None:
    """Give each album without a genre the one that most of its tracks have."""
    for item in {item.album_id: item for item in items if item.album_id}.values():
        album = item.get_album()
        if album is None or (get_genres(album) and not force):
            continue
        found = [tuple(genres) for track in album.items() if (genres := get_genres(track))]
        if found:
            set_genres(album, list(plurality(found)[0]))
            album.store(inherit=False)


@cache
def get_genre_field() -> str:
    """Return the field for genres. Older versions of beets have one genre, as text."""
    return "genres" if "genres" in Item.all_keys() else "genre"


def get_genres(model: Item | Album) -> list[str]:
    value = model[get_genre_field()]
    return [value] if value and isinstance(value, str) else list(value or ())


def set_genres(model: Item | Album, genres: list[str]) -> None:
    name = get_genre_field()
    model[name] = genres if name == "genres" else ", ".join(genres)
