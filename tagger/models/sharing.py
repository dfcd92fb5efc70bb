"""A trained model on its way to the Hugging Face Hub: asked about first, then put there whole.

HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN mean what they mean everywhere.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tagger.errors import ModelError, TaggerError
from tagger.models.hub import Progress, obstacle, silence
from tagger.paths import displayed

SHARED = (".json", ".safetensors", ".md", ".png")
"""What is uploaded from the top of a folder, by how it ends; no folder, such as checkpoints and
logs, nothing hidden, no pickles, and no lists that could tell how somebody's disk is sorted."""

REFUSED = {401: "does not know the token", 403: "lets this token write nothing there"}
"""What the Hub means by a status."""

LOG_IN = "log in (hf auth login) or set HF_TOKEN to a token that may write"


def check_push(repo: str) -> str:
    """Return the whole id, owner and name, of a repository that `push` could write to.

    For the time before a long job: the Hub is asked who the token belongs to, and nothing is made
    there. Raises ModelError where the name is none, the owner is somebody else, or there is no
    token, or one that may only read.
    """
    with _clear_errors(repo):
        from huggingface_hub import whoami
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        validate_repo_id(repo)
        who = whoami()
        owner, _, name = repo.rpartition("/")
        role = who.get("auth", {}).get("accessToken", {}).get("role", "")
        if role == "read":
            raise ModelError(f"cannot push to {repo}: the token may only read: {LOG_IN}")
        owners = [who["name"], *(each["name"] for each in who.get("orgs", []))]
        if owner and role == "write" and owner not in owners:  # finer tokens may tell less
            raise ModelError(
                f"cannot push to {repo}: {who['name']} may only write to {', '.join(owners)}"
            )
    return f"{owner or who['name']}/{name}"


def push(
    folder: Path, repo: str, *, private: bool, message: str, progress: Progress | None = None
) -> str:
    """Upload a model's folder as one commit, and return the address of that.

    The repository is made where there is none; one that is there stays as private as it was.
    `progress` is told, file by file, how many bytes of how many are there. Raises ModelError; the
    folder stays as it is in any case.
    """
    files = shared_files(folder)
    later = f"; {displayed(folder)} stays, and can be pushed later"
    with _clear_errors(repo, later), warnings.catch_warnings(action="ignore"):
        # huggingface_hub warns of its own old ways, and of what the Hub thinks of a card
        from huggingface_hub import CommitOperationAdd, HfApi

        silence()
        hub = HfApi()
        repo = hub.create_repo(repo, private=private, exist_ok=True).repo_id
        total = sum(path.stat().st_size for path in files)
        done, additions = 0, []
        for path in files:
            addition = CommitOperationAdd(path.name, path)
            hub.preupload_lfs_files(repo, [addition], free_memory=False)
            additions.append(addition)
            done += path.stat().st_size
            if progress:
                progress(done, total)
        return str(hub.create_commit(repo, additions, commit_message=message).commit_url)


def shared_files(folder: Path) -> list[Path]:
    """Return what `push` uploads. Raises ModelError where that is nothing."""
    try:
        files = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix in SHARED and not path.name.startswith(".") and path.is_file()
        ]
    except OSError as error:
        raise ModelError(f"cannot read {displayed(folder)}: {error.strerror}") from error
    if not files:
        raise ModelError(f"{displayed(folder)} holds nothing to push")
    return files


@contextmanager
def _clear_errors(repo: str, later: str = "") -> Iterator[None]:
    """Say in one line what went wrong and what helps."""
    try:
        from huggingface_hub import constants, errors
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]
    except ValueError as error:
        raise ModelError(f"HF_ENDPOINT is no address: {error}") from error
    try:
        yield
    except TaggerError:
        raise
    except errors.HFValidationError as error:
        reason = "that is no name of a repository (owner/name)"
        raise ModelError(f"cannot push to {repo}: {reason}") from error
    except Exception as error:  # of Xet's client, or of answers that nobody foresaw
        reason = _reason(error, constants.ENDPOINT, httpx.HTTPError)
        raise ModelError(f"cannot push to {repo}: {reason}{later}") from error


def _reason(error: Exception, endpoint: str, unreachable: type[Exception]) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalTokenNotFoundError):
        return f"there is no token: {LOG_IN}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    cause: BaseException = error
    while True:  # what failed is told by whom it reached first
        if isinstance(cause, errors.HfHubHTTPError) and cause.response.status_code in REFUSED:
            return f"{endpoint} {REFUSED[cause.response.status_code]}: {LOG_IN}"
        if isinstance(cause, unreachable):
            return obstacle(cause)
        if cause.__cause__ is None:
            return " ".join((str(cause) or repr(cause)).split())
        cause = cause.__cause__
