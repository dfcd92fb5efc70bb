"""What a run is asked to do: defaults, TOML file and flags, merged and checked once.

The fields of Settings are the one list of options. The command line makes its flags of them and
the TOML file its keys, so that neither can have an option that the other lacks.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from platformdirs import user_cache_path, user_config_path, user_state_path

from tagger.errors import SettingsError
from tagger.options import (
    Option,
    convert_values,
    list_options,
    make_choice,
    read_toml,
    to_address,
    to_clock,
    to_count,
    to_count_or_auto,
    to_device,
    to_flag,
    to_genre_map,
    to_gpus_or_auto,
    to_jobs,
    to_labels,
    to_limit,
    to_path,
    to_patterns,
    to_probability,
    to_seconds_or_auto,
    to_shard,
    to_text,
)
from tagger.records import Label, Shard


class Existing(StrEnum):
    """What to do with a track that has a genre already."""

    KEEP = "keep"
    REPLACE = "replace"
    APPEND = "append"


class Hardlinks(StrEnum):
    """What to do with a file that has several hard links."""

    SKIP = "skip"
    BREAK = "break"
    IN_PLACE = "in-place"


class Profile(StrEnum):
    """Whom the tags are for; `any` writes each genre as a value of its own and doubts nothing."""

    ANY = "any"
    NAVIDROME = "navidrome"
    JELLYFIN = "jellyfin"
    KODI = "kodi"
    MPD = "mpd"
    PLEX = "plex"
    ITUNES = "itunes"


class Precision(StrEnum):
    """The number format of the network; auto is bf16 where that is much faster, else fp32."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class EngineKind(StrEnum):
    """What runs the network: this machine, or a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that a scan can be told. None stands for `auto`."""

    dry_run: Annotated[bool, Option(to_flag, "Write nothing, only report.", short="-n")] = False
    model: Annotated[
        str,
        Option(
            to_text, "The model that listens: a folder, or an id on the Hub.", "ID_OR_DIR", "-m"
        ),
    ] = "musicnn"
    revision: Annotated[
        str | None,
        Option(to_text, "Which version of a model on the Hub: branch, tag or commit.", "REV"),
    ] = None
    labels: Annotated[
        tuple[Label, ...],
        Option(to_labels, "Your own labels, for a CLAP model to choose from.", "A,B,C|FILE.txt"),
    ] = ()
    report: Annotated[
        Path | None,
        Option(
            to_path, "The CSV report, by default a file per run in the state folder.", "FILE.csv"
        ),
    ] = None
    html: Annotated[
        Path | None,
        Option(to_path, "Also make a page of the report, for a browser.", "FILE.html"),
    ] = None
    state: Annotated[
        Path, Option(to_path, "The database of what earlier runs learned.", "FILE")
    ] = field(default_factory=lambda: user_state_path("tagger") / "state.sqlite")
    existing: Annotated[
        Existing, make_choice(Existing, "What to do with tracks that have a genre.")
    ] = Existing.KEEP
    by_album: Annotated[
        bool, Option(to_flag, "Give the tracks of an album one genre, by what all of them are.")
    ] = False
    min_score: Annotated[
        float, Option(to_probability, "Write no genre that is less likely than this.", "X")
    ] = 0.4
    top_k: Annotated[int, Option(to_count, "How many scores to write and report.", "N")] = 5
    genres: Annotated[
        int, Option(to_count, "How many genres to write, each --min-score or more.", "N")
    ] = 1
    profile: Annotated[
        Profile, make_choice(Profile, "Write genres as this server or player reads them.")
    ] = Profile.ANY
    genre_map: Annotated[
        Mapping[str, str],
        Option(to_genre_map, "Your names for the model's labels.", "FILE.toml"),
    ] = field(default_factory=dict)
    windows: Annotated[
        int | None,
        Option(to_count_or_auto, "How many stretches of each track to listen to.", "N|auto"),
    ] = None
    window_seconds: Annotated[
        float | None,
        Option(to_seconds_or_auto, "How long each is; auto: as the model was trained.", "S|auto"),
    ] = None
    device: Annotated[
        str, Option(to_device, "Where the network runs.", "auto|cpu|cuda|cuda:N|mps")
    ] = "auto"
    precision: Annotated[Precision, make_choice(Precision, "The network's number format.")] = (
        Precision.AUTO
    )
    compile: Annotated[
        bool, Option(to_flag, "Compile the network first, which pays on long runs (torch.compile).")
    ] = False
    batch_size: Annotated[
        int | None,
        Option(to_count_or_auto, "How many windows the network takes at once.", "N|auto"),
    ] = None
    allow_pickle: Annotated[
        bool, Option(to_flag, "Load pickled weights, which can hold harmful code.")
    ] = False
    trust_remote_code: Annotated[
        bool, Option(to_flag, "Run the code that a model brings along.")
    ] = False
    jobs: Annotated[int | None, Option(to_jobs, "How many processes decode.", "N|auto")] = None
    max_seconds: Annotated[
        int,
        Option(
            to_limit(86_400), "How long one file may take to be read; longer is a failure.", "N"
        ),
    ] = 120
    max_memory: Annotated[
        int,
        Option(
            to_limit(1 << 20), "How much memory, in MiB, reading one file may take (Linux).", "N"
        ),
    ] = 2048
    metrics: Annotated[
        Path | None,
        Option(to_path, "Write the outcome as metrics for Prometheus.", "FILE.prom"),
    ] = None
    notify_cmd: Annotated[
        str,
        Option(to_text, "Run this by a shell if files were written; input: their folders.", "CMD"),
    ] = ""
    gentle: Annotated[
        bool, Option(to_flag, "Give way to other programs: lowest priority, fewer threads, rests.")
    ] = False
    until: Annotated[
        time | None,
        Option(to_clock, "Stop when it is that time; the next run goes on from there.", "HH:MM"),
    ] = None
    force: Annotated[
        bool, Option(to_flag, "Listen again to what is known, and try again what failed.")
    ] = False
    exclude: Annotated[
        tuple[str, ...],
        Option(to_patterns, "Skip files and folders that match. Repeatable.", "GLOB"),
    ] = ()
    follow_symlinks: Annotated[
        bool, Option(to_flag, "Follow links, and write where they lead.")
    ] = False
    shard: Annotated[
        Shard | None,
        Option(to_shard, "Scan only this part of the library, the I-th of N.", "I/N"),
    ] = None
    engine: Annotated[
        EngineKind, make_choice(EngineKind, "Run the model on this machine, or on a Ray cluster.")
    ] = EngineKind.LOCAL
    ray_address: Annotated[
        str,
        Option(
            to_address, "The Ray cluster; local starts one for this run.", "auto|local|HOST:PORT"
        ),
    ] = "auto"
    ray_predictors: Annotated[
        int | None,
        Option(to_count_or_auto, "How many processes on Ray hold the model.", "N|auto"),
    ] = None
    ray_predictor_cpus: Annotated[
        int | None, Option(to_count_or_auto, "How many cores each of them has.", "N|auto")
    ] = None
    ray_predictor_gpus: Annotated[
        float | None,
        Option(to_gpus_or_auto, "How much of a GPU each has; 0.5 puts two on one.", "X|auto"),
    ] = None
    hardlinks: Annotated[
        Hardlinks, make_choice(Hardlinks, "What to do with files that have several hard links.")
    ] = Hardlinks.SKIP
    preserve_mtime: Annotated[
        bool, Option(to_flag, "Keep the modification time of written files.")
    ] = False
    audit: Annotated[
        bool, Option(to_flag, "Listen to tracks that keep their genre too, for the report.")
    ] = False
    json: Annotated[bool, Option(to_flag, "Print the summary as one JSON object.")] = False
    quiet: Annotated[bool, Option(to_flag, "Print nothing but errors.", short="-q")] = False
    verbose: Annotated[bool, Option(to_flag, "Say what became of each track.", short="-v")] = False


OPTIONS = list_options(Settings)
"""Every option of a scan; the same names hold in the TOML file."""


def find_default_config() -> Path:
    return user_config_path("tagger") / "config.toml"


def find_systemd_user_folder() -> Path:
    """Return where systemd looks for the units of a user."""
    return user_config_path() / "systemd" / "user"


def find_dataset_cache() -> Path:
    """Return where sound is kept that data sets hold in tables instead of files."""
    return user_cache_path("tagger") / "datasets"


def load_settings(
    flags: Mapping[str, object],
    config: Path | None = None,
    *,
    taking: Collection[str] = OPTIONS.keys(),
) -> Settings:
    """Merge defaults, the TOML file and the flags that were given; the later ones win.

    Without `config` the user's own file is read if there is one; `taking` is what counts of either.
    Raises SettingsError.
    """
    path = config or find_default_config()
    given = read_toml(path) if config or os.access(path, os.F_OK) else {}
    unknown = sorted(given.keys() - OPTIONS.keys())
    if unknown:
        raise SettingsError(f"{path} has an option that tagger does not know: {unknown[0]}")
    merged = {n: (value, f"{n} in {path}") for n, value in given.items() if n in taking}
    merged |= {name: (value, f"--{name}") for name, value in flags.items()}
    return Settings(**convert_values(OPTIONS, merged))
