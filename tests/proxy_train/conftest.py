"""A training that several files look at."""

import pytest

from proxy_train.text.corpus import Corpus
from proxy_train.train import Trained, train
from tests.helpers.small_trainings import SETTINGS, model_of


@pytest.fixture(scope="session")
def trained(sentences: Corpus) -> Trained:
    return train(model_of(), sentences, SETTINGS, seed=3)
