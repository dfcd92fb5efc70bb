"""The bundled model: musicnn (Pons & Serra, 2019) as a Hugging Face audio classifier.

Importing this package is cheap; only `register` imports torch and transformers.
"""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The bundled folder. After `register()`, `from_pretrained` and `transformers.pipeline` take it."""


def register() -> None:
    """Make transformers' Auto classes and pipelines know musicnn; may be called twice."""
    from tagger.models.pretrained import register_musicnn

    register_musicnn()
