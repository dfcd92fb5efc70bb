"""What the operating system refuses, in our words."""

import errno

from tagger.errors import AccessError, DiskFullError, TaggerError

FULL = {errno.ENOSPC, errno.EDQUOT}


def os_error(error: OSError, doing: str) -> TaggerError:
    """Return our error for a refusal of the operating system; a full disk ends the run."""
    reason = f"{doing}: {error.strerror or error}"
    return DiskFullError(reason) if error.errno in FULL else AccessError(reason)
