"""Makes speeches of a few words, prepares them as text to train on, and reads the prepared text back."""

import numpy as np

from proxy_train.text.corpus import Corpus
from proxy_train.text.data_settings import DataSettings
from proxy_train.text.tokenizer import END_OF_DOCUMENT

WORDS = [
    "the",
    "union",
    "of",
    "states",
    "and",
    "people",
    "shall",
    "under",
    "law",
    "be",
    "one",
    "free",
    "country",
    "no",
    "king",
    "in",
]
SMALL_SHARD = 1000


def speech(seed: int, words: int = 120) -> str:
    rng = np.random.default_rng(seed)
    return f"Address number {seed}.\r\n\r\n" + " ".join(rng.choice(WORDS, words)) + " – ¿naïve? 🦅\n"


def small(source: str | list[str], **rest: object) -> DataSettings:
    return DataSettings.model_validate(
        {"source": source, "vocabulary": 300, "validation_fraction": 0.2} | rest
    )


def training_ids(corpus: Corpus) -> np.ndarray:
    return corpus.train().windows(np.array([0]), corpus.train_tokens)[0]


def decoded(corpus: Corpus, ids: np.ndarray) -> list[str]:
    """Returns the documents that a run of tokens stands for."""
    text = corpus.tokenizer().decode(ids.tolist(), skip_special_tokens=False)
    assert text.endswith(END_OF_DOCUMENT)
    return text.split(END_OF_DOCUMENT)[:-1]


def decoded_all(corpus: Corpus) -> list[str]:
    return decoded(corpus, training_ids(corpus)) + decoded(corpus, corpus.validation())


def contents(corpus: Corpus) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in corpus.folder.iterdir()}
