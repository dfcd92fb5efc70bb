"""Checkpoints on the Hugging Face Hub, or a server like it; owns huggingface_hub.

Only this module uses the network. A model is loaded from the folder that was downloaded, so that
what was used once works offline, and the version stays the same until the user fetches another.
HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and the rest mean what they mean everywhere.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tagger.errors import ModelError, TaggerError
from tagger.models.folder import CONFIG, SMALL

MODEL, DATA_SET = "model", "dataset"
"""The kinds of repositories, as the Hub calls them."""

Progress = Callable[[int, int], None]
"""Told how many bytes of how many were downloaded, in any thread; an error of it ends that."""


def find(name: str, revision: str | None) -> Path:
    """Return the cached folder of a model, named by its commit; it need not hold the weights.

    A version that is in the cache is taken from there without asking the Hub. Raises ModelError.
    """
    with _clear_errors(name, revision):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, CONFIG, revision=revision)
    if isinstance(cached, str):
        return Path(cached).parent
    return download(name, revision, SMALL)


def download(
    name: str, revision: str | None, patterns: Sequence[str], progress: Progress | None = None
) -> Path:
    """Download the files at the top of a model's repository that match. Raises ModelError."""
    with _clear_errors(name, revision):
        from huggingface_hub import logging, snapshot_download

        logging.set_verbosity_error()
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns="*/*",
            tqdm_class=_bar(progress or (lambda _done, _total: None)),
        )
    return Path(folder)


def file_names(name: str, revision: str, kind: str = MODEL) -> list[str]:
    """List the files of a model or a data set. Raises ModelError."""
    with _clear_errors(name, revision, kind):
        from huggingface_hub import list_repo_files

        return list_repo_files(name, revision=revision, repo_type=kind)


def download_data(name: str, revision: str, pattern: str) -> Path:
    """Download the files of a data set that match, or find them in the cache. Raises ModelError."""
    with _clear_errors(name, revision, DATA_SET):
        from huggingface_hub import snapshot_download

        folder = snapshot_download(
            name, repo_type=DATA_SET, revision=revision, allow_patterns=pattern
        )
    return Path(folder)


def silence() -> None:
    """Keep huggingface_hub from showing bars and messages of its own, also where others call it."""
    from huggingface_hub import logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    logging.set_verbosity_error()
    disable_progress_bars()


@contextmanager
def _clear_errors(name: str, revision: str | None, kind: str = MODEL) -> Iterator[None]:
    """Say in one line what went wrong and what helps."""
    noun, page = {MODEL: ("model", name), DATA_SET: ("data set", f"datasets/{name}")}[kind]
    try:
        from huggingface_hub import constants, errors
        from huggingface_hub.utils import httpx  # type: ignore[attr-defined]
    except ValueError as error:
        raise ModelError(f"HF_ENDPOINT is no address: {error}") from error
    try:
        yield
    except errors.HFValidationError as error:
        raise ModelError(f"{name} is neither a model folder nor the id of a model") from error
    except errors.GatedRepoError as error:
        raise ModelError(
            f"the {noun} {name} is gated: accept its terms at {constants.ENDPOINT}/{page}, then log"
            " in (hf auth login) or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"there is no {noun} {name} at {constants.ENDPOINT}, or it is private: check its id, or"
            " log in (hf auth login) or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"the {noun} {name} has no revision {revision}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx.HTTPError) as error:
        raise ModelError(
            f"the {noun} {name} is not in the cache ({constants.HF_HUB_CACHE}) as a whole, and"
            f" {obstacle(error)}: connect once to download it, or name a folder that holds it"
        ) from error
    except TaggerError:
        raise
    except Exception as error:  # of Xet's client, or of answers that nobody foresaw
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ModelError(f"cannot download {name}: {reason}") from error


def obstacle(error: BaseException) -> str:
    """Say why the Hub gave no answer that helps."""
    from huggingface_hub import constants, errors

    for each in (error, error.__cause__):
        if isinstance(each, errors.HfHubHTTPError):
            return f"{constants.ENDPOINT} answers with status {each.response.status_code}"
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return f"{constants.ENDPOINT} cannot be reached"


def _bar(progress: Progress) -> Any:
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
