"""What media servers and players make of a genre field (README, "What servers read")."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Profile(StrEnum):
    """Whom the tags are for; `any` writes each genre as a value of its own and doubts nothing."""

    ANY = "any"
    NAVIDROME = "navidrome"
    JELLYFIN = "jellyfin"
    KODI = "kodi"
    MPD = "mpd"
    PLEX = "plex"
    ITUNES = "itunes"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a program reads genres.

    joined: what several genres are joined with, for one that reads a single value; empty for one
    that reads each. splits_at: where it takes a name apart that was meant as one.
    """

    joined: str = ""
    splits_at: tuple[str, ...] = ()


READINGS = {
    Profile.ANY: Reading(),
    Profile.NAVIDROME: Reading(splits_at=(";", "/", ",")),
    Profile.JELLYFIN: Reading(splits_at=("/", ";", ",")),
    Profile.KODI: Reading(splits_at=(" / ",)),
    Profile.MPD: Reading(),
    Profile.PLEX: Reading(joined=", "),
    Profile.ITUNES: Reading(joined=", "),
}


def as_values(genres: tuple[str, ...], profile: Profile) -> tuple[str, ...]:
    """Return genres as the values to be written."""
    separator = READINGS[profile].joined
    return (separator.join(genres),) if separator and genres else genres


def taken_apart(names: Iterable[str], profile: Profile) -> tuple[str, ...]:
    """Return the names that would arrive as several genres."""
    places = READINGS[profile].splits_at
    return tuple(name for name in names if any(place in name for place in places))
