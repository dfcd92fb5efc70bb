"""A digest of the sound as it is stored, to prove that an edit of the tags left it alone."""

import hashlib
from pathlib import Path

import av

from tagger.audio.sources import AV_OPTIONS, describe
from tagger.errors import DecodeError

PICTURE = av.stream.Disposition.attached_pic


def packet_digest(path: Path) -> str:
    """Return a SHA-256 over every packet of every stream but attached pictures, undecoded.

    Like `ffmpeg -c copy -f streamhash`; time stamps and stream parameters count as well.
    Raises DecodeError where FFmpeg cannot take the container apart.
    """
    digest = hashlib.sha256()
    try:
        with av.open(path.absolute(), options=AV_OPTIONS) as container:
            streams = [s for s in container.streams if not s.disposition & PICTURE]
            for stream in streams:
                codec = stream.codec_context
                extradata = codec.extradata if codec else None
                digest.update(f"{stream.index} {stream.type} {stream.time_base}".encode())
                digest.update(extradata or b"")
            is_ape = container.format.name == "ape"
            for packet in container.demux(streams):
                sound = _without_ape_tag(bytes(packet)) if is_ape else bytes(packet)
                digest.update(f"{packet.stream_index} {packet.pts} {len(sound)}".encode())
                digest.update(sound)
    except (av.error.FFmpegError, ValueError) as error:
        raise DecodeError(f"cannot be taken apart (FFmpeg: {describe(error)})") from error
    return digest.hexdigest()


def _without_ape_tag(packet: bytes) -> bytes:
    """Cut the tag off the last packet of a Monkey's Audio file, which FFmpeg lets reach to the end.

    It also rounds that packet down to four bytes, so up to three bytes of padding do not count.
    """
    sound = packet.partition(b"APETAGEX")[0]
    return sound[: len(sound) // 4 * 4]
