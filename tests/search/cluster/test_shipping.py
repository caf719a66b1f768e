import dataclasses

import numpy as np
import pytest

from operators.base.errors import DataError
from proxy_train.text.corpus import open_corpus
from search.cluster.shipping import at_hand, files_of


def never(source):
    raise AssertionError("nothing needs to be fetched")


def test_a_corpus_that_lies_here_is_used_where_it_lies(corpus, tmp_path):
    assert at_hand(corpus, {}, fetch=never, cache=tmp_path) == corpus


def test_a_corpus_that_lies_elsewhere_is_copied_once(corpus, tmp_path):
    files, elsewhere = files_of(corpus), dataclasses.replace(corpus, folder=tmp_path / "absent")
    fetched = []

    def fetch(name):
        fetched.append(name)
        return files[name]

    references = {name: name for name in files}
    found = at_hand(elsewhere, references, fetch=fetch, cache=tmp_path)
    assert sorted(fetched) == sorted(path.name for path in corpus.folder.iterdir() if path.name != "lock")
    assert open_corpus(found.folder) == found
    assert np.array_equal(found.validation(), corpus.validation())
    assert np.array_equal(found.train().windows(np.array([0]), 33), corpus.train().windows(np.array([0]), 33))
    assert at_hand(elsewhere, references, fetch=never, cache=tmp_path) == found


def test_a_damaged_or_unwritable_copy_is_said(corpus, tmp_path):
    files, elsewhere = files_of(corpus), dataclasses.replace(corpus, folder=tmp_path / "absent")
    damaged = {
        name: content[::-1] if name == "validation.bin" else content for name, content in files.items()
    }
    with pytest.raises(DataError, match=r"validation.bin: expected the SHA-256"):
        at_hand(elsewhere, damaged, fetch=lambda content: content, cache=tmp_path / "damaged")
    assert (
        at_hand(elsewhere, files, fetch=lambda content: content, cache=tmp_path / "damaged").digest
        == corpus.digest
    )
    (tmp_path / "full").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="cannot be copied to this machine"):
        at_hand(elsewhere, files, fetch=lambda content: content, cache=tmp_path / "full")
