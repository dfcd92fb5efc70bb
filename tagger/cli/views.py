"""The views of `tagger show` as text and as JSON. Import this late: it imports what a scan does."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from tagger.cli.tables import format_time
from tagger.cli.terminal import escape_unprintable
from tagger.decide import GenreOrigin
from tagger.paths import display_path
from tagger.records import Action, Failure, Outcome, Score, Tags, scores_as_json
from tagger.scanning.show import ScanPlan, TrackMemory, TrackTags, TrackView
from tagger.settings import Settings
from tagger.state import ModelResult, PastWrite

ORIGIN_SENTENCES: Mapping[GenreOrigin, str] = {
    GenreOrigin.NONE: "nobody: there is none",
    GenreOrigin.USER: "a person or another program",
    GenreOrigin.TAGGER: "tagger",
    GenreOrigin.BOTH: "a person or another program, and tagger behind it",
    GenreOrigin.REMOVED: "tagger wrote one, and somebody removed it",
}

PLAN_WORDS: Mapping[Action, str] = {
    Action.WOULD_WRITE: "would write {genres}",
    Action.KEPT: "would keep the file as it is",
    Action.UNCHANGED: "would change nothing",
    Action.LOW_SCORE: "would write no genre",
    Action.NOT_MUSIC: "would write no genre",
    Action.FAILED: "would fail",
}

LISTEN = "listen"
"""What a scan does before it can decide, in the JSON."""

MAX_SHOWN_ATTRIBUTES = 3


def format_view(view: TrackView | Failure, settings: Settings) -> Iterator[str]:
    """Yield the lines of a track: its path, and then a section for each question."""
    name = display_path(view.track.path)
    if isinstance(view, Failure):
        yield escape_unprintable(f"{name}: {view.reason}")
        return
    length = view.memory.duration_s
    yield escape_unprintable(f"{name}{f'  {format_time(length)}' if length else ''}")
    sections = {
        "tags": _list_tag_lines(view.tags),
        "genre from": [ORIGIN_SENTENCES[view.tags.origin]] if view.tags.origin else [],
        "file": _list_file_lines(view),
        "scores": _list_memory_lines(view.memory, settings),
        "history": _list_history_lines(view.memory),
        "a scan": _list_plan_lines(view),
    }
    for title, lines in sections.items():
        for number, line in enumerate(lines):
            yield escape_unprintable(f"  {'' if number else title:<12}{line}")


def _list_tag_lines(found: TrackTags) -> Iterator[str]:
    if found.error:
        yield found.error
    elif not found.fields and not found.elsewhere:
        yield "no genre, and nothing of tagger"
    width = max((len(field.name) for field in found.fields), default=0)
    for field in found.fields:
        yield f"{field.name:<{width}}  {'; '.join(field.values)}"
    for field in found.elsewhere:
        yield f"also in {field.name}: {'; '.join(field.values)}"


def _list_file_lines(view: TrackView) -> Iterator[str]:
    if view.track.links > 1:
        yield f"{view.track.links} hard links lead to it"
    if view.in_use:
        yield view.in_use


def _list_memory_lines(memory: TrackMemory, settings: Settings) -> Iterator[str]:
    if not memory.results:
        missing = "" if settings.state.exists() else ", which does not exist"
        yield f"none in {settings.state}{missing}"
    for result in memory.results:
        windows = f" over {result.windows} windows" if result.windows else ""
        if result.failure:
            yield f"{result.model}{windows}: {_format_failure(result.failure)}"
            continue
        yield f"{result.model}{windows}: {_format_scores(result.scores, settings.top_k)}"
        for name in ("styles", "moods", "voices"):
            if scores := getattr(result.attributes, name):
                yield f"  {name}: {_format_scores(scores, MAX_SHOWN_ATTRIBUTES)}"
    if memory.failure:
        yield _format_failure(memory.failure)


def _format_failure(failure: Failure) -> str:
    return f"failed ({failure.kind}): {failure.reason}"


def _format_scores(scores: Sequence[Score], most: int) -> str:
    more = ", …" if len(scores) > most else ""
    return ", ".join(f"{each.genre} {each.probability:.3f}" for each in scores[:most]) + more


def _list_history_lines(memory: TrackMemory) -> Iterator[str]:
    if not memory.history:
        yield "tagger never wrote into it"
    for write in memory.history:
        started = f"{datetime.fromisoformat(write.started_at).astimezone():%Y-%m-%d %H:%M}"
        yield f"{started}  {write.kind} {write.run_id}: {_format_change(write.before, write.after)}"
        if write.undone_by:
            yield f"  undone by {write.undone_by}"
        if not write.is_finished:
            yield "  the run was killed at this write; the next run finishes it or takes it back"
    if memory.undone:
        yield "tagger's genre is not wanted here: it was undone, or taken out of a report"


def _format_change(before: Tags, after: Tags) -> str:
    """Return what became of the genre, and of each extra field that the write changed."""
    old_values = {extra.field: extra.values for extra in before.extras}
    changes = [
        f"{new.field}: {_join(old)} -> {_join(new.values)}"
        for new in after.extras
        if (old := old_values.get(new.field, ())) != new.values
    ]
    if before.genres != after.genres or not changes:
        changes.insert(0, f"{_format_genres(before)} -> {_format_genres(after)}")
    return ", ".join(changes)


def _join(values: Sequence[str]) -> str:
    return "; ".join(values) or "none"


def _format_genres(tags: Tags) -> str:
    return "; ".join(tags.genres) or "no genre"


def _list_plan_lines(view: TrackView) -> Iterator[str]:
    yield _format_plan(view.plan)
    yield view.plan.reason
    if view.passed_over:
        yield f"but a scan of a folder above it passes it over: {view.passed_over}"


def _format_plan(plan: ScanPlan) -> str:
    outcome = plan.outcome
    if outcome is None:
        return "would listen to it"
    words = PLAN_WORDS[outcome.action].format(genres="; ".join(outcome.genres))
    kind = f", {outcome.kind}" if outcome.kind else ""
    return f"{words} ({outcome.action}{kind})"


def view_as_json(view: TrackView | Failure) -> dict[str, object]:
    """Return a view as values for JSON. Programs read these keys: they stay."""
    path = display_path(view.track.path)
    if isinstance(view, Failure):
        return {"path": path, "error": view.reason}
    memory, tags = view.memory, view.tags
    return {
        "path": path,
        "duration_s": memory.duration_s,
        "links": view.track.links,
        "in_use": view.in_use or None,
        "passed_over": view.passed_over or None,
        "tags": {
            "fields": {field.name: field.values for field in tags.fields},
            "elsewhere": {field.name: field.values for field in tags.elsewhere},
            "genres": tags.tags.genres if tags.tags else (),
            "genre_from": tags.origin.name.lower() if tags.origin else None,
            "error": tags.error or None,
        },
        "models": list(map(_result_as_json, memory.results)),
        "failure": _failure_as_json(memory.failure),
        "undone": memory.undone,
        "history": list(map(_write_as_json, memory.history)),
        "scan": {"model": view.plan.model, **_outcome_as_json(view.plan.outcome)}
        | {"reason": view.plan.reason},
    }


def _result_as_json(result: ModelResult) -> dict[str, object]:
    attributes = result.attributes
    return {
        "model": result.model,
        "windows": result.windows or "auto",
        "scores": scores_as_json(result.scores),
        "styles": scores_as_json(attributes.styles),
        "moods": scores_as_json(attributes.moods),
        "voices": scores_as_json(attributes.voices),
        "failure": _failure_as_json(result.failure),
    }


def _failure_as_json(failure: Failure | None) -> dict[str, object] | None:
    if failure is None:
        return None
    return {"kind": failure.kind, "reason": failure.reason, "permanent": failure.permanent}


def _write_as_json(write: PastWrite) -> dict[str, object]:
    return {
        "run_id": write.run_id,
        "kind": write.kind,
        "started_at": write.started_at,
        "before": write.before.genres,
        "after": write.after.genres,
        "undone_by": write.undone_by or None,
        "finished": write.is_finished,
    }


def _outcome_as_json(outcome: Outcome | None) -> dict[str, object]:
    if outcome is None:
        return {"action": LISTEN, "genres": (), "score": None, "min_score": None, "kind": None}
    return {
        "action": outcome.action,
        "genres": outcome.genres,
        "score": outcome.score,
        "min_score": outcome.min_score,
        "kind": outcome.kind,
    }
