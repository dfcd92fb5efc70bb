"""The functions that scripts call, as `tagger.listen` and so on. docs/python-and-beets.md has more.

They are part of the package itself, so `import tagger` imports this module. What is heavy is
imported when it is used.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tagger.errors import SettingsError
from tagger.options import convert_values
from tagger.paths import AnyPath, parse_path, to_one_line
from tagger.records import Failure, Outcome, Prediction, RepeatedRows
from tagger.settings import OPTIONS, Settings
from tagger.settings_sources import load_settings

PathLike = str | os.PathLike[str]

LOG = logging.getLogger("tagger")
"""For the warnings of a run that a script started. The command line prints its own."""


def listen(
    paths: PathLike | Iterable[PathLike], settings: Settings | None = None
) -> Iterator[Prediction | Failure]:
    """Return an iterator over what the model says about each file, in the given order.

    paths: a file, or several. A Prediction has all labels of the model, best first; a file that
    cannot be listened to is a Failure. No file is changed and nothing is remembered. Raises
    TaggerError where the model cannot be loaded.
    """
    from tagger.classify import run_classify, shape_result
    from tagger.models import find_model

    settings = settings or Settings()
    source = find_model(settings)
    results = run_classify(_list_paths(paths), source, settings, lambda *_: None)
    with_all_labels = replace(settings, top_k=len(source.labels))
    return (shape_result(result, source, with_all_labels) for result in results)


def scan(
    paths: PathLike | Iterable[PathLike],
    settings: Settings | None = None,
    *,
    on_outcome: Callable[[Outcome], object] | None = None,
) -> list[Outcome]:
    """Scan files and folders as `tagger scan` does, and return the outcome of every audio file.

    It writes into the files, unless the settings say `dry_run`. Journal, state file, lock and
    report are those of the command. The outcomes come in the order of the work. on_outcome: is
    called with each at once, when its file is written. Raises TaggerError where the run cannot go
    on. What was done until then stays done.
    """
    from tagger.scanning import run_scan
    from tagger.storage import check_writable

    settings = settings or Settings()
    roots = _list_paths(paths)
    if not settings.dry_run:
        check_writable(roots, preserve_mtime=settings.preserve_mtime)
    outcomes: list[Outcome] = []

    def add(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if on_outcome:
            on_outcome(outcome)

    if roots:
        settings = replace(settings, verbose=True)  # no row of an earlier run is repeated as text
        run_scan(roots, settings, OutcomeObserver(add))
    return outcomes


@dataclass(frozen=True, slots=True)
class OutcomeObserver:
    """A ScanObserver that passes each outcome on, and writes warnings into Python's log."""

    add: Callable[[Outcome], object]

    def on_outcome(self, outcome: Outcome | RepeatedRows) -> None:
        assert isinstance(outcome, Outcome)  # no row is repeated with --verbose
        self.add(outcome)

    def on_unknown_labels(self, unknown: Sequence[str], labels: Sequence[str]) -> None:
        LOG.warning("the genre map has labels that the model lacks: %s", _join_names(unknown))
        LOG.info("labels of the model: %s", _join_names(labels))

    def on_unknown_genres(self, unknown: Sequence[str], genres: Sequence[str]) -> None:
        LOG.warning("min_score has genres that the model never gives: %s", _join_names(unknown))
        LOG.info("genres that it gives: %s", _join_names(genres))

    def on_split_names(self, names: Sequence[str], profile: str) -> None:
        shown = _join_names(names)
        LOG.warning("%s splits these names into several genres: %s", profile, shown)

    def _ignore(self, *_args: object, **_kwargs: object) -> None:
        """Do nothing."""

    on_report_opened = on_wait = on_download = on_rest = check_stop = _ignore
    on_inference_start = on_prediction = on_decision_start = _ignore


def _join_names(names: Iterable[str]) -> str:
    return ", ".join(map(to_one_line, names))


def make_settings(**options: object) -> Settings:
    """Return settings with these options, each as the command line or the config file has it.

    For example `make_settings(min_score=0.6, existing="replace")`. No config file is read. Raises
    SettingsError.
    """
    named = _name_options(options)
    values = {name: (value, name.replace("-", "_")) for name, value in named.items()}
    return Settings(**convert_values(OPTIONS, values))


def read_settings(config: PathLike | None = None, **options: object) -> Settings:
    """Return the settings of a config file, with these options in place of those in the file.

    config: by default the user's own file, if there is one. Raises SettingsError.
    """
    path = Path(os.path.expanduser(config)) if config else None  # noqa: PTH111 - Path's may raise
    return load_settings(_name_options(options), path)


def _name_options(options: Mapping[str, object]) -> dict[str, object]:
    """Return options by the names of their flags. Raises SettingsError for one that is not known.

    None stands for the default. A tuple counts as a list.
    """
    named = {name.replace("_", "-"): value for name, value in options.items()}
    if unknown := named.keys() - OPTIONS.keys():
        raise SettingsError(f"there is no option {min(unknown)}")
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in named.items()
        if value is not None
    }


def _list_paths(paths: PathLike | Iterable[PathLike]) -> list[AnyPath]:
    names = [paths] if isinstance(paths, str | os.PathLike) else paths
    return [_parse_path(os.fspath(name)) for name in names]


def _parse_path(name: str) -> AnyPath:
    if not name:
        raise SettingsError("a path is empty")
    return parse_path(name)
