"""What other programs read in a music file, as names and values that can be compared."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Fields = dict[str, str]
Pairs = Iterator[tuple[str, str]]
TIMEOUT_S = 60

MOVES = re.compile(
    r"""^SourceFile|^File:|^ExifTool:|^Composite:|Offset$|Padding|Free$|^MPEG:AudioBitrate
    |^format\.(filename|size|bit_rate)|@ref|FileSize|CompleteName|FolderName|File_\w*Date
    |FileLength|ChunkOffset|Unknown_ID3|OverallBitRate|StreamSize|HeaderSize|DataSize|FooterSize|IsStreamable|ElementCount|MediaDataSize
    |^FILE\ [0-9.]+\ |Processing\ file|Opening|Name:""",
    re.VERBOSE,
)
"""Sizes, places and names of files: what has to change when a tag grows, or is worked out so."""
DULL = re.compile(
    r"METADATA block|comments: \d|length: \d|is last:|type: [14] |Total data length|Average bitrate"
    r"|.*overhead|.*bitrate|Processing file|\W*$|.*Name: |Tag \d: |File:|User comments section"
    r"|vendor string:$"
)
"""Lines of plain output that tell sizes and numbers of blocks, which change as well."""
OURS = re.compile(r"genre|tagger|gnre|ContentType|©gen", re.IGNORECASE)


BROKEN: dict[tuple[str, str], str] = {
    (".spx", "mediainfo"): r"extra\.Comment",  # takes the length of the first comment for a text
    (".dsf", "ffprobe"): r"duration",  # reckons it from the size of the whole file
    (".mpc", "mediainfo"): r"\.BitRate$",  # the same
    (".wma", "mediainfo"): r"^Video.*\.BitRate$",  # the same, of the picture
    (".ogg", "mediainfo"): r"extra\.|Format_Settings",  # is lost in comments of many pages
}
"""What a program gets wrong, whoever wrote the file."""


def theirs(fields: Fields) -> Fields:
    """Leave out what tagger may change; plain output has names and values in one line."""
    return {
        name: value
        for name, value in fields.items()
        if value and not OURS.search(name) and not OURS.search(value[:20])
    }


def read(path: Path) -> dict[str, Fields]:
    """Return what each program that knows such a file says about it."""
    suffix = path.suffix.lower()
    found = {}
    for name, (suffixes, reader) in READERS.items():
        broken = re.compile(BROKEN.get((suffix, name), r"\b\B"))
        if not suffixes or suffix in suffixes:
            pairs = (
                (k, v) for k, v in reader(path) if not MOVES.search(k) and not broken.search(k)
            )
            found[name] = _together(pairs)
    return found


def _together(pairs: Pairs) -> Fields:
    """Name each value of a name by how it begins: the order in the file may be another."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(re.sub(r":Copy\d+", "", name), []).append(value)
    return {
        f"{name} = {value[:40]}": value for name, each in values.items() for value in sorted(each)
    }


def output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    return done.stdout.decode("utf-8", "replace")


def stream_hash(path: Path) -> str:
    """Return FFmpeg's digest of every stream, undecoded; its last packet of an .ape is the tag."""
    if path.suffix == ".ape":
        return ""
    command = ("ffmpeg", "-v", "quiet", "-i", path, "-map", "0", "-c", "copy", "-f", "streamhash")
    return output(*command, "-")


def _flat(value: Any, name: str = "") -> Pairs:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{name}.{number}")
    else:
        yield name, str(value)


def _json(*command: str | Path) -> Any:
    text = output(*command)
    try:
        return json.loads(text or "{}")
    except ValueError:
        return {"unreadable": text}


def _ffprobe(path: Path) -> Pairs:
    asked = ("-show_format", "-show_streams", "-show_chapters")
    return _flat(_json("ffprobe", "-v", "quiet", "-of", "json", *asked, path))


def _exiftool(path: Path) -> Pairs:
    return _flat((_json("exiftool", "-j", "-b", "-G0:4", "-a", "-u", path) or [{}])[0])


def _mediainfo(path: Path) -> Pairs:
    media = _json("mediainfo", "--Output=JSON", path).get("media") or {}
    for number, track in enumerate(media.get("track", [])):
        yield from _flat(track, f"{track.get('@type')}{number}")


def _lines(*command: str) -> Callable[[Path], Pairs]:
    """Return a reader of plain output, with FILE where the file's name belongs."""

    def reader(path: Path) -> Pairs:
        text = output(*(path if part == "FILE" else part for part in command))
        for line in text.replace(str(path), "FILE").splitlines():
            plain = " ".join(re.sub(r"comment\[\d+\]: ", "", line).split())
            if not DULL.match(plain):
                yield plain, plain

    return reader


OGG = (".ogg", ".oga", ".opus", ".spx")
READERS: dict[str, tuple[tuple[str, ...], Callable[[Path], Pairs]]] = {
    "ffprobe": ((), _ffprobe),
    "exiftool": ((), _exiftool),
    "mediainfo": ((), _mediainfo),
    "kid3-cli": ((), _lines("kid3-cli", "-c", "get", "FILE")),
    "metaflac": ((".flac",), _lines("metaflac", "--list", "FILE")),
    "ogginfo": (OGG, _lines("ogginfo", "-v", "FILE")),
    "opusinfo": ((".opus",), _lines("opusinfo", "FILE")),
    "AtomicParsley": ((".m4a", ".m4b", ".mp4"), _lines("AtomicParsley", "FILE", "-t")),
}
