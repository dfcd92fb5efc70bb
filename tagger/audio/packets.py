"""Digests of what a file holds as it is stored, to prove that an edit of the tags left it alone."""

import hashlib
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import av

from tagger.audio.sources import AV_OPTIONS, GONE, describe
from tagger.errors import AccessError, DecodeError

SEQUENTIAL = {"flac", "mp3"}
"""Containers whose packets follow one another and are found by nothing but what is in them."""

FIRST_PACKETS = 500


def stream_digests(path: Path, *, bytes_compared: bool = False) -> dict[str, str]:
    """Return a SHA-256 over every packet of each stream, undecoded, and what the chapters are.

    Like `ffmpeg -c copy -f streamhash`; time stamps and stream parameters count as well. A picture
    is a stream, as FFmpeg sees it.
    bytes_compared: the sound is compared byte for byte by other means. Of MP3 and FLAC the first
    packets then do: if they are the same, FFmpeg begins at the same place, and makes the same of
    the same bytes from there on.
    Raises DecodeError where FFmpeg cannot take the container apart.
    """
    digests: dict[str, Any] = defaultdict(hashlib.sha256)
    try:
        with av.open(path.absolute(), options=AV_OPTIONS, metadata_errors="replace") as container:
            names = [f"{stream.type} stream {stream.index}" for stream in container.streams]
            for name, stream in zip(names, container.streams, strict=True):
                codec = stream.codec_context
                digests[name].update(f"{stream.disposition} {stream.time_base}".encode())
                digests[name].update((codec.extradata if codec else None) or b"")
            is_ape = container.format.name == "ape"
            known = bytes_compared and container.format.name in SEQUENTIAL
            for packet in islice(container.demux(), FIRST_PACKETS if known else None):
                sound = _without_ape_tag(bytes(packet)) if is_ape else bytes(packet)
                digest = digests[names[packet.stream_index]]
                digest.update(f"{packet.pts} {len(sound)} ".encode())
                digest.update(sound)
            found = {name: digest.hexdigest() for name, digest in digests.items()}
            return found | {"chapters": repr(container.chapters())}
    except GONE as error:
        raise AccessError(f"cannot open: {error.strerror}") from error
    except (av.error.FFmpegError, ValueError) as error:
        raise DecodeError(f"cannot be taken apart (FFmpeg: {describe(error)})") from error
    except IndexError as error:  # PyAV counts the streams once
        raise DecodeError("cannot be taken apart: a stream begins in the middle of it") from error


def _without_ape_tag(packet: bytes) -> bytes:
    """Cut the tag off the last packet of a Monkey's Audio file, which FFmpeg lets reach to the end.

    It also rounds that packet down to four bytes, so up to three bytes of padding do not count.
    """
    sound = packet.partition(b"APETAGEX")[0]
    return sound[: len(sound) // 4 * 4]
