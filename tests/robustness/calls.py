"""What is called on a damaged file, and the verdict: well, refused by us, or a finding."""

import resource
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tagger.audio import hash_streams, read_windows
from tagger.errors import TrackError
from tagger.records import Tags
from tagger.tags import read_other_fields, read_tags
from tagger.writing.replace import find_unwanted_changes
from tests.replacing import inspect_file, restore, retag

SLOW_S = 5.0
MUCH_MEMORY = 400 << 20
TAGS = Tags(("Hip-Hop", "Soul"), ("Hip-Hop", "Soul"), "Hip-Hop=0.8;Soul=0.1", "musicnn")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a call ended: well (no kind), refused, or a finding; alike ones have the same sign.

    `address space` is a refusal for the sake of the limit: most are sizes that a file only claims.
    """

    kind: str = ""
    sign: str = ""
    details: str = ""


def listen(path: Path) -> object:
    return read_windows(path, rate_hz=16_000, window_s=3.0, count=8)


def is_heard(path: Path) -> bool:
    with suppress(TrackError):
        listen(path)
        return True
    return False


def rewrite(path: Path) -> None:
    """Write our tags and take them back; nothing else may change, or nothing at all if refused."""
    before = path.read_bytes()
    try:
        tags, others, sound = read_tags(path), inspect_file(path), is_heard(path)
        retag(path, TAGS)
    except TrackError:
        assert path.read_bytes() == before, "refused, but changed"
        raise
    finally:
        assert list(path.parent.iterdir()) == [path], "a copy was left"
    try:
        assert read_tags(path) == TAGS, "other tags are read back"
        assert not find_unwanted_changes(others, inspect_file(path)), "something else changed"
        assert is_heard(path) or not sound, "it is no longer heard"
        restore(path, tags)
        assert read_tags(path).raw == tags.raw, "undo brings other tags"
        assert not find_unwanted_changes(others, inspect_file(path)), "undo changed something else"
    except TrackError as error:
        raise AssertionError(f"written, then refused: {error}") from error


CALLS: dict[str, Callable[[Path], object]] = {
    "read_tags": read_tags,
    "other_fields": read_other_fields,
    "hash_streams": hash_streams,
    "read_windows": listen,
    "rewrite": rewrite,
}


def judge(path: Path, call: str) -> Verdict:
    """Make one call on a file and say how it ended."""
    memory, start = peak_memory(), time.process_time()
    try:
        CALLS[call](path)
        verdict = Verdict()
    except TrackError as error:
        verdict = Verdict("refused")
        if isinstance(error.__cause__, MemoryError):
            verdict = Verdict("address space", f"{call} {path.suffix}", str(error))
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        verdict = Verdict("foreign", place(error), traceback.format_exc())
    if (spent := time.process_time() - start) > SLOW_S:
        verdict = Verdict("slow", f"{call} {path.suffix}", f"{spent:.1f} s, {verdict}")
    elif (more := peak_memory() - memory) > MUCH_MEMORY:
        verdict = Verdict("memory", f"{call} {path.suffix}", f"{more >> 20} MiB, {verdict}")
    return verdict


def place(error: BaseException) -> str:
    """Return the kind of an error, the innermost line of Python it came from, its text."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} {Path(frame.filename).name}:{frame.lineno} {error!s:.60}"


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
