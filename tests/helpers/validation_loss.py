"""A model's validation loss with the settings of a training."""

from operators.model import HybridLM
from proxy_train.settings import ProxySettings
from proxy_train.text.corpus import Corpus
from proxy_train.train import evaluate


def validation_scores(
    model: HybridLM, corpus: Corpus, settings: ProxySettings, *, rows: int | None = None
) -> tuple[float, float]:
    """Nats per token and bits per byte. rows: windows in one pass, where it is not the batch size."""
    return evaluate(
        model,
        corpus,
        sequence_length=settings.sequence_length,
        tokens=settings.validation_tokens,
        rows=rows or settings.batch_size,
    )
