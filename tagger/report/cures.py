"""What failures have in common, and what a person can do about each kind."""

import re
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of failure. cure: what to do about it."""

    title: str
    cure: str


OTHER = Kind("Something else", "The reason says what; `tagger scan --force` tries again.")

KINDS = {
    r"too short": Kind("Too short", "Nothing to do: a second of sound is needed to tell a genre."),
    r"silent": Kind(
        "Silent where it was listened to",
        "Play it. If there is music later in it, more --windows find it; else nothing to do.",
    ),
    r"truncated|cut off|never finished|is empty": Kind(
        "Cut off or empty", "Fetch or rip the file again: a part of it is missing."
    ),
    r"damaged|is broken|do not fit into one another|cannot be taken apart|hangs|crash": Kind(
        "Damaged",
        "Play it to the end. If that works, `ffmpeg -i OLD -c copy NEW` makes a sound container.",
    ),
    r"whatever its name says|not what its name says|no such sound": Kind(
        "Not what its name says", "Rename it to what it is (`ffprobe` tells), or take it out."
    ),
    r"cannot be decoded|no decoder": Kind(
        "Cannot be decoded", "Convert it to a common format, or leave it out with --exclude."
    ),
    r"changed|was edited|no regular file any more": Kind(
        "Changed while tagger was at work", "Nothing to do: the next run looks again."
    ),
    r"cannot be read|the store |its server |nobody can tell whether": Kind(
        "A server stood in the way", "Nothing to do once it answers: the next run tries again."
    ),
    r"cannot open|cannot read|cannot be looked at|owner and group|ermission": Kind(
        "Out of reach", "Let the user that runs tagger read the file and write its folder."
    ),
    r"--max-": Kind("Took too much time or memory", "Raise the limit that the reason names."),
    r"cannot be tagged|can be tagged|cannot be kept|would be larger|no tag can|not written": Kind(
        "Heard, but its tags cannot be written", "The reason says what stands in the way."
    ),
}
"""By what the reason says; the first that fits counts."""


def kind_of(reason: str) -> Kind:
    return next((kind for said, kind in KINDS.items() if re.search(said, reason)), OTHER)
