"""The files by which people tell media servers what to leave out, such as .ndignore.

docs/options.md has the rules of each and their sources. Owns pathspec, which is loaded late: few
libraries have such a file.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from tagger.errors import AccessError, FailureKind
from tagger.paths import AnyPath
from tagger.storage import FolderEntry, find_file, open_for_reading

Matcher = Callable[[str, bool], bool | None]
"""Gets a path below the folder of an ignore file, and whether it is a folder.

Says whether the file hides it; None if no pattern fits, so that the folders above decide.
"""

MAX_FILE_BYTES = 64 << 10

MAX_WILDCARDS = 4
"""The `*` in one pattern. With more of them, one name can keep a regular expression for hours."""


def hide_all(_path: str, _is_folder: bool) -> bool:  # noqa: FBT001 - a Matcher
    return True


def match_gitignore(lines: Sequence[str]) -> Matcher:
    """Return the Matcher of a file in the format of .gitignore; if it is empty, it hides all."""
    return _compile_patterns(lines) if any(map(str.strip, lines)) else hide_all


def match_navidrome(lines: Sequence[str]) -> Matcher:
    """Return the Matcher of a .ndignore, which also hides all if it has nothing but comments."""
    return match_gitignore(_list_patterns(lines))


def match_mpd(lines: Sequence[str]) -> Matcher:
    """Return the Matcher of a .mpdignore. Its patterns are for names; `!` has no meaning there."""
    names = (line for line in _list_patterns(lines) if "/" not in line)
    return _compile_patterns(re.sub("^!", r"\!", name) for name in names)


def match_plex(lines: Sequence[str]) -> Matcher:
    """Return the Matcher of a .plexignore. Upper and lower case do not matter.

    A pattern with a slash is for paths, but has no effect if it begins with one. Others are for
    names of files.
    """
    patterns = [_escape_plex_pattern(line.lower()) for line in _list_patterns(lines)]
    hides_name = _compile_patterns(each for each in patterns if "/" not in each)
    hides_path = _compile_patterns(
        re.sub(r"/\*$", "/", f"/{each}")  # a folder whose entries are all hidden is hidden
        for each in patterns
        if "/" in each and not each.startswith("/")
    )

    def match(path: str, is_folder: bool) -> bool | None:  # noqa: FBT001 - a Matcher
        path = path.lower()
        name = path.rpartition("/")[2]
        return hides_path(path, is_folder) or (hides_name(name, False) if not is_folder else None)

    return match


def _escape_plex_pattern(line: str) -> str:
    """Return a pattern for .gitignore, where backslash, `!` and `**` mean something else."""
    pattern = line[1:] if line.startswith("\\#") else line
    pattern = re.sub(r"\*+", "*", pattern.replace("\\", "\\\\"))
    return re.sub("^([!#])", r"\\\1", pattern)


def _list_patterns(lines: Iterable[str]) -> list[str]:
    """Return the lines that are no comments, without the space around them."""
    return [line for line in map(str.strip, lines) if line and not line.startswith("#")]


def _compile_patterns(lines: Iterable[str]) -> Matcher:
    """Return the Matcher of patterns as .gitignore has them. Raises ValueError."""
    from pathspec import GitIgnoreSpec

    checked = [_correct_pattern(_check_pattern(line)) for line in lines]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # [[ may mean something else one day
            spec = GitIgnoreSpec.from_lines(checked)
    except re.error as error:
        raise ValueError(f"a pattern has a {error.msg}") from error
    return lambda path, is_folder: spec.check_file(f"{path}/" if is_folder else path).include


def _check_pattern(line: str) -> str:
    if not line.startswith("#") and len(re.findall(r"\*+", line)) > MAX_WILDCARDS:
        raise ValueError(f"more than {MAX_WILDCARDS} * are in {line}")
    return line


def _correct_pattern(line: str) -> str:
    """Make `a/**` what it is for git: all in the folder a, and not the folder itself.

    pathspec (1.1) hides a as well, with all that another line shows again, and for `a/**/` also the
    files in it.
    """
    return re.sub(r"/\*\*(/?) *$", r"/**/*\1", line)


NO_MEDIA, JELLYFIN = ".nomedia", ".ignore"

IGNORE_FILES: Mapping[str, Callable[[Sequence[str]], Matcher]] = {
    JELLYFIN: match_gitignore,
    ".lmsignore": match_gitignore,
    ".mpdignore": match_mpd,
    ".ndignore": match_navidrome,
    NO_MEDIA: lambda _: hide_all,
    ".plexignore": match_plex,
}
"""What makes a Matcher of the lines of an ignore file, by its name."""


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """What one ignore file hides. below: the way from its folder to the folder at hand: "a/b/"."""

    name: str
    match: Matcher
    below: str = ""


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """What the ignore files of a folder, and those of the folders above, hide in it."""

    rules: tuple[IgnoreRule, ...] = ()

    @property
    def hide_all(self) -> bool:
        return any(rule.match is hide_all for rule in self.rules)

    def hide(self, entry: FolderEntry) -> bool:
        """Tell whether an entry of the folder is hidden."""
        return bool(self.rules and self.find_hiding_file(entry.name, is_folder=_is_folder(entry)))

    def find_hiding_file(self, name: str, *, is_folder: bool) -> str:
        """Return the name of the ignore file that hides something in the folder, or ""."""
        shown_by = set()  # a pattern with ! of a file further down wins over the files above
        for rule in reversed(self.rules):
            is_hidden = rule.match(rule.below + name, is_folder)
            if is_hidden and rule.name not in shown_by:
                return rule.name
            if is_hidden is False:
                shown_by.add(rule.name)
        return ""

    def enter(self, name: str) -> "IgnoreRules":
        """Return the rules for a folder in the folder, which may have ignore files as well."""
        if not self.rules:
            return self
        rules = (replace(rule, below=f"{rule.below}{name}/") for rule in self.rules)
        return IgnoreRules(tuple(rules))

    def read(self, folder: AnyPath, entries: Iterable[FolderEntry]) -> "IgnoreRules":
        """Add the ignore files among the entries of the folder. Raises AccessError."""
        names = [
            each.name for each in entries if each.name in IGNORE_FILES and not _is_folder(each)
        ]
        if NO_MEDIA in names:
            names = [NO_MEDIA]  # whatever the others say, and whether they can be read
        return self.add([read_rule(folder / name) for name in names])

    def add(self, rules: Sequence[IgnoreRule]) -> "IgnoreRules":
        """Add the rules of the folder. Of Jellyfin's files, only the nearest one counts."""
        if not rules:
            return self
        replaced = {JELLYFIN} & {rule.name for rule in rules}
        return IgnoreRules((*(each for each in self.rules if each.name not in replaced), *rules))


def _is_folder(entry: FolderEntry) -> bool:
    with suppress(OSError):
        return entry.is_dir()
    return False


def read_rule(path: AnyPath) -> IgnoreRule:
    """Read an ignore file. Raises AccessError."""
    try:
        lines = [] if path.name == NO_MEDIA else _read_lines(path)
        return IgnoreRule(path.name, IGNORE_FILES[path.name](lines))
    except AccessError as error:
        raise _make_unreadable(path, error, error.kind) from error
    except OSError as error:
        raise _make_unreadable(path, error.strerror, FailureKind.NO_ACCESS) from error
    except ValueError as error:
        raise _make_unreadable(path, error, FailureKind.OTHER) from error


def _make_unreadable(path: AnyPath, reason: object, kind: FailureKind) -> AccessError:
    text = f"the folder is left out, because its {path.name} cannot be read: {reason}"
    return AccessError(text, kind)


def _read_lines(path: AnyPath) -> list[str]:
    """Return the lines of a text. Its bytes are decoded as those of file names are."""
    if find_file(path).size > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES >> 10} KiB")
    with open_for_reading(path) as file:
        text = os.fsdecode(file.read(MAX_FILE_BYTES).removeprefix(b"\xef\xbb\xbf"))
    if "\0" in text:
        raise ValueError("it is no text, or not in UTF-8")
    return [line.removesuffix("\r") for line in text.split("\n")]


def read_rules_above(root: AnyPath) -> IgnoreRules:
    """Return the rules of the folders above a folder that the user named.

    A file has no say here if it hides this folder, because the user named it, or if it cannot be
    read. On servers each question costs a request, so the folders above are not looked at.
    """
    rules = IgnoreRules()
    if not isinstance(root, Path):
        return rules
    for folder, child in pairwise([*reversed(root.parents), root]):
        for rule in _list_readable_rules(folder):
            if not rule.match(str(root.relative_to(folder)), True):
                rules = rules.add([rule])
        rules = rules.enter(child.name)
    return rules


def explain_hiding(path: AnyPath) -> str:
    """Return what hides a file from the crawl of a folder above it; "" if nothing does."""
    rules = IgnoreRules()
    if not isinstance(path, Path):
        return ""
    for folder, child in pairwise([*reversed(path.parents), path]):
        rules = rules.add(list(_list_readable_rules(folder)))
        if name := rules.find_hiding_file(child.name, is_folder=child != path):
            return f"a file {name} hides {child}"
        rules = rules.enter(child.name)
    return ""


def _list_readable_rules(folder: Path) -> Iterator[IgnoreRule]:
    for name in IGNORE_FILES:
        with suppress(AccessError):
            if os.path.lexists(path := folder / name):
                yield read_rule(path)
