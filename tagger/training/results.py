"""What is put beside a trained model: pictures, numbers, and the card that tells what it is."""

import json
from dataclasses import asdict

from tagger.models.card import Card, CardScores, write_card
from tagger.training.evaluate import as_json
from tagger.training.pictures import draw_curves, draw_measures
from tagger.training.plans import Trained
from tagger.training.workspace import RESULTS, write_whole


def leave_results(trained: Trained) -> None:
    """Put beside the model what it is worth; nothing of it tells where the clips lie.

    Raises ReportError and ModelError where that cannot be written.
    """
    folder, measures = trained.plans.request.folder, trained.evaluation.measures
    dataset = trained.plans.dataset.title
    title = f"{folder.name} on {dataset}"
    draw_curves(trained.epochs, title, folder / "curves.png")
    draw_measures(measures, title, folder / "measures.png")
    numbers = {
        **as_json(trained.evaluation),
        "model": folder.name,
        "dataset": dataset,
        "left_out": _left_out(trained),
        "epochs": [asdict(epoch) for epoch in trained.epochs],
    }
    write_card(folder, _card(trained))
    write_whole(folder / RESULTS, json.dumps(numbers, indent=2) + "\n")


def _left_out(trained: Trained) -> int:
    return len(trained.plans.dataset.left_out) + len(trained.plans.failed)


def _card(trained: Trained) -> Card:
    plans, measures = trained.plans, trained.evaluation.measures
    split, share = plans.split, measures.accuracy
    halves = {"learned from": split.train, "validation": split.validation, "test": split.test}
    return Card(
        name=plans.request.repo or plans.request.folder.name,
        base=plans.request.base,
        dataset=plans.dataset.title,
        model_type=plans.config.model_type,
        labels=plans.labels,
        scores=CardScores(
            accuracy=share.value,
            low=share.low,
            high=share.high,
            clips=share.clips,
            macro_f1=measures.macro_f1,
            ece=measures.ece,
            chose=not split.test,
        ),
        data={name: len(clips) for name, clips in halves.items() if clips}
        | {"halves": split.how, "left out": _left_out(trained)},
        recipe=plans.noted_recipe,
        epochs=[
            {
                "epoch": epoch.number,
                "training loss": epoch.train_loss,
                "validation loss": epoch.validation_loss,
                "accuracy": epoch.accuracy,
            }
            for epoch in trained.epochs
        ],
        genres=[asdict(row) for row in measures.genres],
        leaks=(f"Pairs of clips that are one recording in two halves: {len(plans.leaks)}.",),
    )
