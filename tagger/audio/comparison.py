"""What FFmpeg finds in a file, to compare a copy with its original: packets, chapters, texts."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from tagger.audio.decoders import (
    AV_ARGUMENTS,
    demux_packets,
    describe_ffmpeg_error,
    get_av_options,
)
from tagger.errors import DecodeError, FailureKind
from tagger.paths import decode_foreign_bytes

SEQUENTIAL_CONTAINERS = {"flac", "mp3", "ogg"}
"""Containers without an index: a packet follows the packet before it."""

COMPARED_PACKETS = 500

SHOWN_PREFIX = "what FFmpeg shows as "
TAGGER_FIELD = re.compile(r"genre|tagger[_/](scores|model|genre)", re.IGNORECASE)
"""The fields that tagger writes, by the names that FFmpeg gives them."""


def hash_streams(path: Path, *, bytes_compared: bool = False) -> dict[str, str]:
    """Return a SHA-256 over every packet of each stream, undecoded, and the chapters as text.

    Like `ffmpeg -c copy -f streamhash`; time stamps and stream parameters count as well. A picture
    is a stream, as FFmpeg sees it.
    bytes_compared: the caller compares the audio byte for byte by other means, and the checksums of
    Ogg pages. Of MP3, FLAC and Ogg the first packets are then enough: if these are the same, FFmpeg
    begins at the same place, and makes the same packets of the same bytes from there on. Of the
    last frame of Monkey's Audio only the time counts then, because FFmpeg reads that frame to the
    end of the file, tags included.
    Raises DecodeError where FFmpeg cannot demux the container, AccessError.
    """
    digests: dict[str, Any] = defaultdict(hashlib.sha256)
    try:
        with _open_container(path) as container:
            names = [f"{stream.type} stream {stream.index}" for stream in container.streams]
            for name, stream in zip(names, container.streams, strict=True):
                codec = stream.codec_context
                digests[name].update(f"{stream.disposition} {stream.time_base}".encode())
                digests[name].update((codec.extradata if codec else None) or b"")
            is_ape = container.format.name == "ape"
            is_sequential = container.format.name in SEQUENTIAL_CONTAINERS
            count = COMPARED_PACKETS if bytes_compared and is_sequential else None
            for packet in islice(demux_packets(container), count):
                payload = bytes(packet)
                if is_ape:
                    is_last = bytes_compared and _is_last_frame(packet)
                    payload = b"" if is_last else _cut_ape_tag(payload)
                digest = digests[names[packet.stream_index]]
                digest.update(f"{packet.pts} {len(payload)} ".encode())
                digest.update(payload)
            hashes = {name: digest.hexdigest() for name, digest in digests.items()}
            return hashes | {"chapters": repr(container.chapters())}
    except IndexError as error:  # PyAV counts the streams only once
        reason = "cannot be taken apart: a stream begins in the middle of it"
        raise DecodeError(reason, FailureKind.DAMAGED) from error


@contextmanager
def _open_container(path: Path) -> Iterator[InputContainer]:
    """Open a file with FFmpeg for a comparison. Raises DecodeError, AccessError."""
    try:
        options = get_av_options(path)
        with av.open(path.absolute(), options=options, **AV_ARGUMENTS) as container:
            yield container
    except (av.error.FFmpegError, ValueError) as error:
        reason = f"cannot be taken apart (FFmpeg: {describe_ffmpeg_error(error, path)})"
        raise DecodeError(reason, FailureKind.DAMAGED) from error


def read_metadata(path: Path, left_out: Collection[str] = ()) -> dict[str, str]:
    """Return the texts that FFmpeg shows of a file and its streams, without tagger's fields.

    left_out: names of more fields to leave out, in lower case.
    Texts count without spaces around them. Bytes that are no UTF-8 count as Latin-1, as they do in
    the ID3v2 tag that tagger makes of an ID3v1 tag.
    Raises DecodeError where FFmpeg cannot demux the container, AccessError.
    """
    with _open_container(path) as container:
        places = {"": container.metadata}
        places |= {f" of stream {stream.index}": stream.metadata for stream in container.streams}
        texts = {
            f"{SHOWN_PREFIX}{name}{place}": decode_foreign_bytes(
                text.encode("utf-8", "surrogateescape")
            ).strip()
            for place, metadata in places.items()
            for name, text in metadata.items()
            if not TAGGER_FIELD.fullmatch(name) and name.casefold() not in left_out
        }
        return {name: text for name, text in texts.items() if text}


def _is_last_frame(packet: "av.Packet[Any]") -> bool:
    """Tell whether a packet ends where its stream ends by what the header says."""
    if packet.pts is None or packet.duration is None or packet.stream.duration is None:
        return False
    return bool(packet.pts + packet.duration >= packet.stream.duration)


def _cut_ape_tag(packet: bytes) -> bytes:
    """Cut the tag off the last packet of a Monkey's Audio file; FFmpeg reads it to the file's end.

    FFmpeg also rounds that packet down to four bytes, so up to three bytes of padding do not count.
    """
    audio = packet.partition(b"APETAGEX")[0]
    return audio[: len(audio) // 4 * 4]
