"""A whole training: fine-tune, measure, and leave a folder that others can load."""

from dataclasses import replace
from typing import Any

from tagger.models import find_source
from tagger.training.clips import Dataset
from tagger.training.evaluate import Evaluation, evaluate
from tagger.training.examples import Task
from tagger.training.finetune import finetune
from tagger.training.network import load_model
from tagger.training.plans import Plans, Tell, Trained, half_of, notes_on
from tagger.training.results import leave_results
from tagger.training.workspace import NOTES, clear, clear_errors, open_workspace


def train(plans: Plans, tell: Tell, *, resume: bool, tensorboard: bool) -> Trained:
    """Fine-tune, keep the best epoch, and measure it on the half that is held out for that.

    Raises SettingsError where the folder holds another training, ReportError where it cannot be
    written, and what `finetune` and `evaluate` raise.
    """
    request, folder = plans.request, plans.request.folder
    model = load_model(request.source, plans.config, plans.labels, plans.recipe, request.settings)
    open_workspace(folder, notes_on(plans), plans.split)
    task = Task(
        model=model,
        extractor=plans.extractor,
        train=half_of(plans.split.train, plans, cropped=plans.recipe.random_crops),
        validation=half_of(plans.split.validation, plans),
        recipe=plans.recipe,
        folder=folder,
        settings=request.settings,
        tensorboard=tensorboard,
    )
    epochs = finetune(task, tell, resume=resume)
    with clear_errors(folder):
        features: Any = plans.extractor.feature_extractor
        features.save_pretrained(folder)
        task.model.save_pretrained(folder)
        for path in folder.glob("*.safetensors"):
            path.chmod((folder / NOTES).stat().st_mode)  # safetensors lets nobody else read them
    trained = Trained(plans, epochs, _measure(plans, tell))
    with clear_errors(folder):
        leave_results(trained)
    clear(folder)
    return trained


def _measure(plans: Plans, tell: Tell) -> Evaluation:
    """Hear the clips held out as a scan hears them, with the folder that is the result."""
    settings = replace(
        plans.request.settings,
        model=str(plans.request.folder),
        revision=None,
        window_seconds=None,
        genre_map={},
    )
    clips = plans.split.test or plans.split.validation
    return evaluate(
        Dataset(plans.dataset.name, clips, title=plans.dataset.title),
        find_source(settings),
        settings,
        tell.fetching,
        lambda done: tell.measured(done, len(clips)),
    )
