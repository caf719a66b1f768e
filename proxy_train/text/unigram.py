"""What a model loses that knows only how often tokens occur, on the same tokens that a trained model is scored on."""

from functools import lru_cache

import numpy as np

from proxy_train.settings import ProxySettings
from proxy_train.text.corpus import Corpus
from proxy_train.text.data import validation_batches
from proxy_train.text.prepare import unigram_loss

_AT_ONCE = 2**22  # ids, so that a large corpus takes little memory


def scored_unigram_loss(corpus: Corpus, settings: ProxySettings) -> float:
    """Nats per token over the targets that `train.evaluate` scores: the first `validation_tokens` in whole windows.

    Frequencies are those of the training tokens, one added to each (see `prepare.unigram_loss`). Raises DataError, see `require_windows`.
    """
    counts = np.zeros(corpus.vocabulary, dtype=np.int64)
    for _, targets in validation_batches(
        corpus,
        batch_size=settings.batch_size,
        sequence_length=settings.sequence_length,
        tokens=settings.validation_tokens,
    ):
        counts += np.bincount(targets.flatten().numpy(), minlength=corpus.vocabulary)
    return unigram_loss(_training_counts(corpus), counts)


@lru_cache(maxsize=2)  # A worker trains many candidates on one corpus.
def _training_counts(corpus: Corpus) -> np.ndarray:
    """How often each id occurs in the training tokens: [vocabulary]."""
    counts = np.zeros(corpus.vocabulary, dtype=np.int64)
    for shard in corpus.train().shards:
        for first in range(0, len(shard), _AT_ONCE):
            counts += np.bincount(shard[first : first + _AT_ONCE], minlength=corpus.vocabulary)
    return counts
