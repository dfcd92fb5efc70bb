"""Where the files of a user lie that tagger keeps or reads without being told."""

from pathlib import Path

from platformdirs import user_cache_path, user_config_path, user_state_path


def find_default_config() -> Path:
    return user_config_path("tagger") / "config.toml"


def find_default_state() -> Path:
    return user_state_path("tagger") / "state.sqlite"


def find_systemd_user_folder() -> Path:
    """Return the folder of the user's systemd units."""
    return user_config_path() / "systemd" / "user"


def find_dataset_cache() -> Path:
    """Return the folder for audio files that were unpacked from the tables of data sets."""
    return user_cache_path("tagger") / "datasets"


def find_hash_cache() -> Path:
    """Return the file with the hashes of the weights of local models."""
    return user_cache_path("tagger") / "weights.json"
