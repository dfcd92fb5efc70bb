"""Models and data sets on the Hugging Face Hub: download and upload; owns huggingface_hub."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tagger.errors import ModelError, TaggerError
from tagger.paths import display_path, to_one_line

CONFIG_FILE = "config.json"
EXTRACTOR_FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
SMALL_FILES = (CONFIG_FILE, *EXTRACTOR_FILES, *TOKENIZER_FILES)

MODEL_REPO, DATASET_REPO = "model", "dataset"
"""The kinds of repositories, as the Hub calls them."""

ByteProgress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in total, in any thread; its error ends the transfer."""

LOG_IN = "log in (hf auth login) or set HF_TOKEN"
LOG_IN_TO_WRITE = f"{LOG_IN} to a token that may write"

DOWNLOAD_ERRORS = {
    "HFValidationError": "{name} is neither a model folder nor the id of a model",
    "GatedRepoError": (
        "the {noun} {name} is gated: accept its terms at {endpoint}/{page}, then " + LOG_IN
    ),
    "RepositoryNotFoundError": (
        "there is no {noun} {name} at {endpoint}, or it is private: check its id, or " + LOG_IN
    ),
    "RevisionNotFoundError": "the {noun} {name} has no revision {revision}",
    **dict.fromkeys(
        ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "HTTPError"),
        "the {noun} {name} is not in the cache ({cache}) as a whole, and {obstacle}: connect once"
        " to download it, or name a folder that holds it",
    ),
    "Exception": "cannot download {name}: {reason}",
}
PUSH_ERRORS = {
    "HFValidationError": "cannot push to {name}: it is not a name of a repository (owner/name)",
    "LocalTokenNotFoundError": "cannot push to {name}: there is no token: " + LOG_IN_TO_WRITE,
    "401": "cannot push to {name}: {endpoint} does not know the token: " + LOG_IN_TO_WRITE,
    "403": "cannot push to {name}: {endpoint} lets this token write nothing: " + LOG_IN_TO_WRITE,
    **dict.fromkeys(("OfflineModeIsEnabled", "HTTPError"), "cannot push to {name}: {obstacle}"),
    "Exception": "cannot push to {name}: {reason}",
}
"""What a user reads for an error, by its HTTP status or the name of its class or a base class.

`translate_hub_errors` fills in the names in braces. "Exception" is for the errors of Xet's client,
and for answers that nobody foresaw.
"""


@contextmanager
def translate_hub_errors(
    messages: Mapping[str, str],
    name: str,
    *,
    kind: str = MODEL_REPO,
    revision: str | None = None,
    advice: str = "",
) -> Iterator[None]:
    """Raise a ModelError of one line for an error of the Hub; `advice` is added to its end.

    The first error in the chain of causes that has a line in the table decides.
    """
    try:
        from huggingface_hub import constants
    except ValueError as error:
        raise ModelError(f"HF_ENDPOINT is no address: {error}") from error
    try:
        yield
    except TaggerError:
        raise
    except Exception as error:
        chain = list(_list_causes(error))
        known = ((cause, key) for cause in chain for key in _list_keys(cause) if key in messages)
        cause, key = next(known, (chain[-1], "Exception"))
        noun, page = ("model", name) if kind == MODEL_REPO else ("data set", f"datasets/{name}")
        message = messages[key].format(
            name=name,
            noun=noun,
            page=page,
            revision=revision,
            endpoint=constants.ENDPOINT,
            cache=constants.HF_HUB_CACHE,
            obstacle=_describe_obstacle(cause),
            reason=to_one_line((str(cause) or repr(cause)).splitlines()[0]),
        )
        raise ModelError(f"{message}{advice}") from error


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of the cause, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _list_keys(error: BaseException) -> Iterator[str]:
    """Yield the keys of the tables that fit an error, the most specific first."""
    yield str(getattr(getattr(error, "response", None), "status_code", ""))
    yield from (each.__name__ for each in type(error).__mro__ if each is not Exception)


def _describe_obstacle(error: BaseException) -> str:
    """Say why the Hub did not answer, or with what status."""
    from huggingface_hub import constants, errors

    for each in (error, error.__cause__):
        if isinstance(each, errors.HfHubHTTPError):
            return f"{constants.ENDPOINT} answers with status {each.response.status_code}"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return f"{constants.ENDPOINT} cannot be reached"


def find_cached_model(name: str, revision: str | None) -> Path:
    """Return the cached folder of a model, named by its commit; it may lack the weights.

    The Hub is asked only where the cache does not have this revision. Raises ModelError.
    """
    with translate_hub_errors(DOWNLOAD_ERRORS, name, revision=revision):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, CONFIG_FILE, revision=revision)
    if isinstance(cached, str):
        return Path(cached).parent
    return download(name, revision, SMALL_FILES)


def download(
    name: str, revision: str | None, patterns: Sequence[str], progress: ByteProgress | None = None
) -> Path:
    """Download matching files from the top folder of a model's repository. Raises ModelError."""
    with translate_hub_errors(DOWNLOAD_ERRORS, name, revision=revision):
        from huggingface_hub import logging, snapshot_download

        logging.set_verbosity_error()
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns="*/*",
            tqdm_class=_make_bar_class(progress or (lambda _done, _total: None)),
        )
    return Path(folder)


def list_repo_files(name: str, revision: str, kind: str = MODEL_REPO) -> list[str]:
    """List the files of a model or a data set. Raises ModelError."""
    with translate_hub_errors(DOWNLOAD_ERRORS, name, kind=kind, revision=revision):
        from huggingface_hub import list_repo_files

        return list_repo_files(name, revision=revision, repo_type=kind)


def download_dataset(name: str, revision: str, pattern: str) -> Path:
    """Download matching files of a data set, or find them in the cache. Raises ModelError."""
    with translate_hub_errors(DOWNLOAD_ERRORS, name, kind=DATASET_REPO, revision=revision):
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            name, repo_type=DATASET_REPO, revision=revision, allow_patterns=pattern
        )
    return Path(folder)


def find_cache() -> Path:
    """Return the folder into which huggingface_hub downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def silence_hub() -> None:
    """Hide huggingface_hub's progress bars and messages, also those of calls by other libraries."""
    from huggingface_hub import logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.set_verbosity_error()
    disable_progress_bars()


def _make_bar_class(progress: ByteProgress) -> Any:
    """Return a tqdm class, as huggingface_hub wants, that shows nothing and calls `progress`."""
    from tqdm.auto import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"file": io.StringIO()})

        def display(self, *_args: Any, **_kwargs: Any) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            if self.unit == "B" and self.total:
                progress(int(self.n), int(self.total))

    return Bar


UPLOADED_SUFFIXES = (".json", ".safetensors", ".md", ".png")
"""The files of a model's folder that are uploaded: none of subfolders (checkpoints, logs), no
hidden files, no pickles, and no lists of clips, which show how the user's disk is organised."""


def check_push(repo: str) -> str:
    """Return the whole id (owner/name) of a repository that `push_model` could write to.

    Meant to be called before a long job. It asks the Hub whose the token is, and creates nothing
    there. Raises ModelError for a name that is not valid, another owner, and a missing or read-only
    token.
    """
    with translate_hub_errors(PUSH_ERRORS, repo):
        from huggingface_hub import whoami
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        validate_repo_id(repo)
        account = whoami()
        owner, _, name = repo.rpartition("/")
        role = account.get("auth", {}).get("accessToken", {}).get("role", "")
        if role == "read":
            raise ModelError(f"cannot push to {repo}: the token may only read: {LOG_IN_TO_WRITE}")
        owners = [account["name"], *(each["name"] for each in account.get("orgs", []))]
        if owner and role == "write" and owner not in owners:  # fine-grained tokens do not list all
            raise ModelError(
                f"cannot push to {repo}: {account['name']} may only write to {', '.join(owners)}"
            )
    return f"{owner or account['name']}/{name}"


def push_model(
    folder: Path, repo: str, *, private: bool, message: str, progress: ByteProgress | None = None
) -> str:
    """Upload a model's folder as one commit, and return the commit's address.

    Creates the repository where there is none; an existing one stays private or public. `progress`
    is called after each file. Raises ModelError; the folder does not change in any case.
    """
    files = list_uploads(folder)
    advice = f"; {display_path(folder)} stays, and can be pushed later"
    with (
        translate_hub_errors(PUSH_ERRORS, repo, advice=advice),
        warnings.catch_warnings(action="ignore"),  # of deprecations, and of the card's contents
    ):
        from huggingface_hub import CommitOperationAdd, HfApi

        silence_hub()
        api = HfApi()
        repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
        total_bytes = sum(path.stat().st_size for path in files)
        done_bytes, additions = 0, []
        for path in files:
            addition = CommitOperationAdd(path.name, path)
            api.preupload_lfs_files(repo, [addition], free_memory=False)
            additions.append(addition)
            done_bytes += path.stat().st_size
            if progress:
                progress(done_bytes, total_bytes)
        return str(api.create_commit(repo, additions, commit_message=message).commit_url)


def list_uploads(folder: Path) -> list[Path]:
    """Return the files that `push_model` uploads. Raises ModelError where there are none."""
    try:
        files = [
            path
            for path in sorted(folder.iterdir())
            if path.suffix in UPLOADED_SUFFIXES and not path.name.startswith(".") and path.is_file()
        ]
    except OSError as error:
        raise ModelError(f"cannot read {display_path(folder)}: {error.strerror}") from error
    if not files:
        raise ModelError(f"{display_path(folder)} holds nothing to push")
    return files
