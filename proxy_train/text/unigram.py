"""The loss of a model that knows only how often tokens occur, on the tokens that others are scored on."""

from functools import lru_cache

import numpy as np

from proxy_train.text.corpus import Corpus
from proxy_train.text.data import validation_batches
from proxy_train.text.prepare import unigram_loss

_AT_ONCE = 2**22  # ids counted at a time, so that a large corpus takes little memory


def scored_unigram_loss(corpus: Corpus, *, sequence_length: int, tokens: int) -> float:
    """The unigram loss in nats per token over the targets that `train.evaluate` scores.

    The frequencies come from the training tokens, see `prepare.unigram_loss`.

    sequence_length: tokens of a window.
    tokens: the targets are the first so many of the validation text, in whole windows.

    Raises DataError, see `require_windows`.
    """
    counts = np.zeros(corpus.vocabulary, dtype=np.int64)
    for _, targets in validation_batches(
        corpus, batch_size=max(1, _AT_ONCE // sequence_length), sequence_length=sequence_length, tokens=tokens
    ):
        counts += np.bincount(targets.flatten().numpy(), minlength=corpus.vocabulary)
    return unigram_loss(_training_counts(corpus), counts)


@lru_cache(maxsize=2)  # a worker trains many candidates on one corpus
def _training_counts(corpus: Corpus) -> np.ndarray:
    """How often each id occurs in the training tokens: [vocabulary]."""
    counts = np.zeros(corpus.vocabulary, dtype=np.int64)
    for shard in corpus.train().shards:
        for first in range(0, len(shard), _AT_ONCE):
            counts += np.bincount(shard[first : first + _AT_ONCE], minlength=corpus.vocabulary)
    return counts
