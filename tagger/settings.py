"""The options of a run, checked once; `settings_sources.py` merges what the user set.

The fields of Settings are the only list of options. The flags of the command line, the keys of the
TOML file and the names of environment variables are made from them. To add an option, add a field:
its annotation has the converter, the help, the values and what the option affects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from tagger.addresses import MediaServer, SecretUrl
from tagger.errors import SettingsError
from tagger.options import (
    Affects,
    Option,
    check_field_classes,
    list_field_classes,
    list_options,
    make_choice,
    to_count,
    to_count_or_auto,
    to_count_up_to,
    to_device,
    to_duration,
    to_duration_or_auto,
    to_flag,
    to_genre_map,
    to_gpus_or_auto,
    to_hours,
    to_jobs,
    to_labels,
    to_members,
    to_min_score,
    to_names,
    to_path,
    to_patterns,
    to_ping_url,
    to_ray_address,
    to_seconds_or_auto,
    to_secret_urls,
    to_servers,
    to_shard,
    to_text,
    to_time_of_day,
)
from tagger.records import Hours, Label, MinScore, Shard
from tagger.user_folders import find_default_state
from tagger.vocabulary import Vocabulary, to_vocabulary


class Existing(StrEnum):
    """What to do with a track that has a genre already."""

    KEEP = "keep"
    REPLACE = "replace"
    APPEND = "append"


class Context(StrEnum):
    """Which other tracks count for the genre of a track. `artist` includes the album."""

    NONE = "none"
    ALBUM = "album"
    ARTIST = "artist"


class Hardlinks(StrEnum):
    """What to do with a file that has several hard links."""

    SKIP = "skip"
    BREAK = "break"
    IN_PLACE = "in-place"


class Owner(StrEnum):
    """What to do with a file whose owner and group a copy of it cannot get."""

    KEEP = "keep"
    IN_PLACE = "in-place"


class NotMusic(StrEnum):
    """What to do with a track that is no music."""

    SKIP = "skip"
    TAG = "tag"


class WrittenField(StrEnum):
    """What a scan writes into a file."""

    GENRE = "genre"
    STYLE = "style"
    MOOD = "mood"
    VOICE = "voice"


class Styles(StrEnum):
    """Where styles are written: behind the genre, or into a field of their own."""

    GENRE = "genre"
    STYLE = "style"
    GROUPING = "grouping"


class Profile(StrEnum):
    """The program that reads the tags; `any` writes each genre as a value of its own."""

    ANY = "any"
    NAVIDROME = "navidrome"
    JELLYFIN = "jellyfin"
    KODI = "kodi"
    MPD = "mpd"
    PLEX = "plex"
    ITUNES = "itunes"


class Precision(StrEnum):
    """The number format of the network; auto is bf16 where it is much faster than fp32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class EngineKind(StrEnum):
    """What runs the network: this machine, or a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


JUNK_GENRES = (
    "Other", "Others", "Unknown", "Unknown Genre", "Misc", "Miscellaneous", "Music", "Genre",
    "Default", "None", "No Genre", "Undefined", "Unclassifiable", "Unclassified", "Uncategorized",
    "Unspecified", "N/A", "(12)", "(255)", "Unbekannt", "Andere", "Sonstige", "Inconnu", "Autre",
    "Desconocido", "Otro",
)  # fmt: skip
"""What programs write where they know no genre. 12 and 255 are the numbers of ID3v1 for that."""

MAX_SECONDS = 86_400  # a day
MAX_MEMORY_MIB = 1 << 20  # a TiB

ROWS, INFERENCE, FILES, MACHINE = Affects


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a scan. None stands for `auto`."""

    dry_run: Annotated[
        bool,
        Option(to_flag, "Write nothing; only report what would be written.", short="-n"),
        FILES,
    ] = False
    model: Annotated[
        str,
        Option(to_text, "The model: a folder, or an id on the Hub.", "ID_OR_DIR", "-m"),
        ROWS | INFERENCE,
    ] = "musicnn-yamnet"
    revision: Annotated[
        str | None,
        Option(to_text, "The version of a model on the Hub: a branch, a tag or a commit.", "REV"),
        ROWS | INFERENCE,
    ] = None
    labels: Annotated[
        tuple[Label, ...],
        Option(to_labels, "Your own labels, from which a CLAP model chooses.", "A,B,C|FILE.txt"),
        ROWS | INFERENCE,
    ] = ()
    report: Annotated[
        Path | None,
        Option(to_path, "The CSV report; without it: a new file in the state folder.", "FILE.csv"),
        MACHINE,
    ] = None
    html: Annotated[
        Path | None,
        Option(to_path, "Also write a page with charts, for a browser.", "FILE.html"),
        MACHINE,
    ] = None
    state: Annotated[
        Path, Option(to_path, "The database with the results of earlier runs.", "FILE"), MACHINE
    ] = field(default_factory=find_default_state)
    existing: Annotated[
        Existing, make_choice(Existing, "What to do with tracks that have a genre."), ROWS
    ] = Existing.KEEP
    junk_genres: Annotated[
        tuple[str, ...],
        Option(
            to_names,
            "Names that do not count as a genre. A track with only such names counts as untagged.",
            "A,B,C",
        ),
        ROWS,
    ] = JUNK_GENRES
    by_album: Annotated[
        bool,
        Option(to_flag, "Give all tracks of an album one genre, chosen by their pooled scores."),
        ROWS,
    ] = False
    context: Annotated[
        Context,
        make_choice(
            Context, "Also use the scores and genres of other tracks of the album or artist."
        ),
        ROWS,
    ] = Context.NONE
    min_score: Annotated[
        MinScore,
        Option(
            to_min_score,
            "Write no genre with a score below X. A table in the config file has X by genre.",
            "X",
        ),
        ROWS,
    ] = field(default_factory=MinScore)
    not_music: Annotated[
        NotMusic,
        make_choice(NotMusic, "Tracks without music: skip them, or tag speech as Spoken Word."),
        ROWS,
    ] = NotMusic.SKIP
    write: Annotated[
        tuple[WrittenField, ...],
        Option(
            to_members(WrittenField),
            "What to write: the genre, and more.",
            "genre,style,mood,voice",
        ),
        ROWS,
    ] = (WrittenField.GENRE,)
    styles: Annotated[
        Styles,
        make_choice(Styles, "Where --write style goes: behind the genre, or a field of its own."),
        ROWS,
    ] = Styles.STYLE
    mood_numbers: Annotated[
        bool,
        Option(to_flag, "Also write the probability of each mood, for smart playlists."),
        ROWS,
    ] = False
    top_k: Annotated[
        int, Option(to_count, "The number of scores to write and report.", "N"), ROWS
    ] = 5
    genres: Annotated[
        int,
        Option(to_count, "Write at most N genres, each with a score of at least --min-score.", "N"),
        ROWS,
    ] = 1
    profile: Annotated[
        Profile,
        make_choice(Profile, "Write genres in the form that this server or player reads."),
        ROWS,
    ] = Profile.ANY
    genre_map: Annotated[
        Mapping[str, str],
        Option(to_genre_map, "Your own names for the labels of the model.", "FILE.toml"),
        ROWS,
    ] = field(default_factory=dict)
    vocabulary: Annotated[
        Vocabulary | None,
        Option(to_vocabulary, "Your names for genres, with rules for folders.", "FILE.toml"),
        ROWS,
    ] = None
    windows: Annotated[
        int | None,
        Option(to_count_or_auto, "The number of windows of each track to listen to.", "N|auto"),
        ROWS | INFERENCE,
    ] = None
    window_seconds: Annotated[
        float | None,
        Option(
            to_seconds_or_auto, "The length of a window; auto: as the model was trained.", "S|auto"
        ),
        ROWS | INFERENCE,
    ] = None
    device: Annotated[
        str,
        Option(to_device, "The device that runs the model.", "auto|cpu|cuda|cuda:N|mps"),
        MACHINE,
    ] = "auto"
    precision: Annotated[
        Precision,
        make_choice(Precision, "The number format in which the model calculates."),
        INFERENCE,
    ] = Precision.AUTO
    compile: Annotated[
        bool,
        Option(to_flag, "Compile the model first (torch.compile), for long runs on a GPU."),
        MACHINE,
    ] = False
    batch_size: Annotated[
        int | None,
        Option(to_count_or_auto, "The number of windows that the model takes at once.", "N|auto"),
        MACHINE,
    ] = None
    allow_pickle: Annotated[
        bool,
        Option(to_flag, "Load weights from pickle files, which can contain harmful code."),
        INFERENCE,
    ] = False
    trust_remote_code: Annotated[
        bool, Option(to_flag, "Run the Python code that comes with a model."), INFERENCE
    ] = False
    jobs: Annotated[
        int | None,
        Option(
            to_jobs,
            "The number of processes that decode audio; auto: as cores and --max-memory allow.",
            "N|auto",
        ),
        MACHINE,
    ] = None
    max_seconds: Annotated[
        int,
        Option(to_count_up_to(MAX_SECONDS), "The time limit in seconds for reading one file.", "N"),
        MACHINE,
    ] = 120
    max_memory: Annotated[
        int,
        Option(
            to_count_up_to(MAX_MEMORY_MIB),
            "The memory limit in MiB for reading one file (Linux only).",
            "N",
        ),
        MACHINE,
    ] = 2048
    metrics: Annotated[
        Path | None,
        Option(to_path, "Write the counts of the run as metrics for Prometheus.", "FILE.prom"),
        MACHINE,
    ] = None
    notify_cmd: Annotated[
        str,
        Option(
            to_text,
            "Run CMD in a shell if files were written, with their folders as its input.",
            "CMD",
        ),
        MACHINE,
    ] = ""
    notify: Annotated[
        tuple[MediaServer, ...],
        Option(
            to_servers,
            "Tell a server which folders changed: navidrome, jellyfin, plex, kodi, mpd or lyrion."
            " Repeatable.",
            "SERVER=URL",
            is_secret=True,
        ),
        MACHINE,
    ] = ()
    ping_url: Annotated[
        SecretUrl | None,
        Option(
            to_ping_url,
            "Tell a monitoring service (healthchecks.io) of the start and the end of each run.",
            "URL",
            is_secret=True,
        ),
        MACHINE,
    ] = None
    alert: Annotated[
        tuple[SecretUrl, ...],
        Option(
            to_secret_urls,
            "Send a message (ntfy, mail, Telegram, …) when something is wrong. Repeatable.",
            "URL",
            is_secret=True,
        ),
        MACHINE,
    ] = ()
    wait: Annotated[
        bool,
        Option(to_flag, "Wait while another run uses the state file, instead of ending at once."),
        MACHINE,
    ] = False
    gentle: Annotated[
        bool,
        Option(to_flag, "Slow down for other programs: lowest priority, fewer threads, pauses."),
        MACHINE,
    ] = False
    until: Annotated[
        time | None,
        Option(
            to_time_of_day, "Stop at this time of day; the next run continues the work.", "HH:MM"
        ),
        MACHINE,
    ] = None
    force: Annotated[
        bool,
        Option(
            to_flag, "Listen again to known tracks, and retry tracks that failed or were undone."
        ),
        ROWS,
    ] = False
    exclude: Annotated[
        tuple[str, ...],
        Option(to_patterns, "Skip files and folders that match GLOB. Repeatable.", "GLOB"),
        FILES,
    ] = ()
    include_ignored: Annotated[
        bool,
        Option(to_flag, "Do not skip what .nomedia, .ndignore, .plexignore and the like hide."),
        FILES,
    ] = False
    follow_symlinks: Annotated[
        bool,
        Option(to_flag, "Follow symbolic links, and write into the files they lead to."),
        FILES,
    ] = False
    shard: Annotated[
        Shard | None,
        Option(to_shard, "Scan only part I of the library, which is divided into N parts.", "I/N"),
        FILES,
    ] = None
    engine: Annotated[
        EngineKind,
        make_choice(EngineKind, "Run the model on this machine, or on a Ray cluster."),
        MACHINE,
    ] = EngineKind.LOCAL
    ray_address: Annotated[
        str,
        Option(
            to_ray_address,
            "The Ray cluster; local: start a new cluster for this run.",
            "auto|local|HOST:PORT",
        ),
        MACHINE,
    ] = "auto"
    ray_predictors: Annotated[
        int | None,
        Option(to_count_or_auto, "The number of Ray processes that hold the model.", "N|auto"),
        MACHINE,
    ] = None
    ray_predictor_cpus: Annotated[
        int | None,
        Option(
            to_count_or_auto,
            "The number of CPU cores for each Ray process with the model.",
            "N|auto",
        ),
        MACHINE,
    ] = None
    ray_predictor_gpus: Annotated[
        float | None,
        Option(
            to_gpus_or_auto,
            "The share of a GPU for each Ray process with the model; 0.5: two on one GPU.",
            "X|auto",
        ),
        MACHINE,
    ] = None
    hardlinks: Annotated[
        Hardlinks,
        make_choice(Hardlinks, "What to do with files that have several hard links."),
        ROWS,
    ] = Hardlinks.SKIP
    owner: Annotated[
        Owner,
        make_choice(
            Owner,
            "If a copy cannot keep the owner: leave the file as it is, or write into the file.",
        ),
        FILES,
    ] = Owner.IN_PLACE
    preserve_mtime: Annotated[
        bool, Option(to_flag, "Keep the modification time of written files."), FILES
    ] = False
    audit: Annotated[
        bool,
        Option(
            to_flag, "Also listen to tracks that keep their genre; the report shows both genres."
        ),
        ROWS,
    ] = False
    json: Annotated[bool, Option(to_flag, "Print the summary as one JSON object."), MACHINE] = False
    quiet: Annotated[bool, Option(to_flag, "Print only errors.", short="-q"), MACHINE] = False
    verbose: Annotated[
        bool, Option(to_flag, "Print a line for each track.", short="-v"), MACHINE
    ] = False

    @property
    def needs_albums(self) -> bool:
        """Whether the tracks of an album count for the genre of each other."""
        return self.by_album or self.context is not Context.NONE

    def __post_init__(self) -> None:
        check_field_classes(self, FIELD_CLASSES)
        if self.by_album and self.context is not Context.NONE:
            raise SettingsError(
                "--by-album gives an album one genre and --context gives each track its own:"
                " leave one of them out"
            )
        if (
            WrittenField.STYLE in self.write
            and self.styles is Styles.GENRE
            and WrittenField.GENRE not in self.write
        ):
            raise SettingsError(
                "--styles genre puts styles behind the genre, which --write leaves out: use"
                " --write genre,style, or --styles style"
            )


FIELD_CLASSES = list_field_classes(Settings)

OPTIONS = list_options(Settings)
"""The options of a scan by flag name; the keys of the TOML file are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """The options of `tagger watch` beside those of its scans. None stands for `auto`."""

    settle: Annotated[
        float,
        Option(to_duration, "Leave a file alone until it did not change for S seconds.", "S"),
    ] = 30
    poll: Annotated[
        float | None,
        Option(
            to_duration_or_auto,
            "Look at all files every S seconds; auto: on network shares every 15 minutes.",
            "S|auto",
        ),
    ] = None
    idle: Annotated[
        float,
        Option(to_duration, "Keep the model in memory for S seconds without work.", "S"),
    ] = 300
    quiet_hours: Annotated[
        Hours | None,
        Option(to_hours, "Do no work in these hours.", "HH:MM-HH:MM"),
    ] = None


WATCH_OPTIONS = list_options(WatchSettings)

ALL_OPTIONS = MappingProxyType({**OPTIONS, **WATCH_OPTIONS})
"""The options that the TOML file and the environment may set."""


def get_row_settings(settings: Settings) -> tuple[object, ...]:
    """Return the values on which a row of the report depends, in a fixed order.

    A row that an earlier run kept is repeated only if these are equal.
    """
    names = (name for name, option in OPTIONS.items() if Affects.ROWS in option.affects)
    values = (getattr(settings, name.replace("-", "_")) for name in names)
    return tuple(sorted(each.items()) if isinstance(each, Mapping) else each for each in values)
