"""Where the values of options come from: config file, environment, secret files and flags."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from tagger.errors import SettingsError
from tagger.options import REPEATABLE, convert_values, parse_variable, read_text, read_toml
from tagger.settings import ALL_OPTIONS, OPTIONS, WATCH_OPTIONS, Settings, WatchSettings
from tagger.user_folders import find_default_config


def name_variable(option: str) -> str:
    """Return the name of the environment variable that sets an option."""
    return f"TAGGER_{option.upper().replace('-', '_')}"


def read_environment() -> Mapping[str, object]:
    """Return the options that environment variables set, by flag name.

    An empty variable sets nothing: compose files pass such variables on. Inside the command of
    --notify-cmd (TAGGER_WRITTEN is set), TAGGER_REPORT is the report of the run that ended.
    """
    texts = {name: os.environ.get(name_variable(name), "") for name in ALL_OPTIONS}
    if "TAGGER_WRITTEN" in os.environ:
        del texts["report"]
    return {name: parse_variable(ALL_OPTIONS[name], text) for name, text in texts.items() if text}


def read_secret_files() -> Mapping[str, object]:
    """Return secret options whose values stand in files, by flag name.

    TAGGER_PING_URL_FILE names the file of --ping-url. If an option is repeatable, each line of its
    file is a value. Raises SettingsError.
    """
    found = {}
    for name, option in OPTIONS.items():
        path = os.environ.get(name_secret_file(name)) if option.is_secret else ""
        if path:
            text = read_text(Path(path)).strip()
            found[name] = text.splitlines() if option.convert in REPEATABLE else text
    return found


def name_secret_file(option: str) -> str:
    """Return the environment variable that names the file with the value of a secret option."""
    return f"{name_variable(option)}_FILE"


def load_settings(
    flags: Mapping[str, object],
    config: Path | None = None,
    *,
    config_options: Collection[str] = OPTIONS.keys(),
) -> Settings:
    """Merge the defaults, the TOML file, environment variables and flags; the later ones win.

    A secret option may also stand in a file that a variable names.

    config: by default the user's own file, if there is one. config_options: the options that are
    taken from the file and from the environment; the others are ignored there. Raises
    SettingsError.
    """
    return Settings(**convert_values(OPTIONS, _merge(flags, config, config_options)))


def load_watch_settings(flags: Mapping[str, object], config: Path | None = None) -> WatchSettings:
    """Do what `load_settings` does, for the options of `tagger watch`."""
    merged = _merge(flags, config, WATCH_OPTIONS.keys())
    return WatchSettings(**convert_values(WATCH_OPTIONS, merged))


def _merge(
    flags: Mapping[str, object], config: Path | None, config_options: Collection[str]
) -> dict[str, tuple[object, str]]:
    """Return the value of each option that is set, and where it is set."""
    path = config or find_default_config()
    values = read_toml(path) if config or os.access(path, os.F_OK) else {}
    if unknown := sorted(values.keys() - ALL_OPTIONS.keys()):
        raise SettingsError(f"{path} has an unknown option: {unknown[0]}")
    merged = {name: (value, f"{name} in {path}") for name, value in values.items()}
    files = read_secret_files()
    merged |= {name: (value, name_secret_file(name)) for name, value in files.items()}
    merged |= {name: (value, name_variable(name)) for name, value in read_environment().items()}
    merged = {name: value for name, value in merged.items() if name in config_options}
    return merged | {name: (value, f"--{name}") for name, value in flags.items()}
