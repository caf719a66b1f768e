import dataclasses

import numpy as np
import pytest

from operators.base.errors import DataError
from proxy_train.images.image_corpus import open_images
from proxy_train.images.image_settings import ImageSettings
from proxy_train.images.prepare import prepare_images
from proxy_train.text.corpus import open_corpus
from search.cluster.shipping import at_hand, files_of
from tests.helpers.image_sources import colours


@pytest.fixture
def images(corpus, tmp_path):
    pytest.importorskip("PIL")
    settings = ImageSettings(source=str(colours(tmp_path / "data")), image_size=8)
    return prepare_images(settings, corpus.folder / "tokenizer.json", cache=tmp_path / "images")


@pytest.fixture(params=["corpus", "images"])
def prepared(request):
    """Text, then images."""
    return request.getfixturevalue(request.param)


def never(source):
    raise AssertionError("nothing needs to be fetched")


def test_what_lies_here_is_used_where_it_lies(prepared, tmp_path):
    assert at_hand(prepared, {}, fetch=never, cache=tmp_path) == prepared


def copied(prepared, tmp_path):
    """What was copied to a machine that lacks it; checks that all files were, and once."""
    files, elsewhere = files_of(prepared), dataclasses.replace(prepared, folder=tmp_path / "absent")
    fetched = []

    def fetch(name):
        fetched.append(name)
        return files[name]

    references = {name: name for name in files}
    found = at_hand(elsewhere, references, fetch=fetch, cache=tmp_path)
    there = [path.name for path in prepared.folder.iterdir() if path.suffix in (".json", ".bin")]
    assert sorted(fetched) == sorted(there)
    assert fetched[-1] == "manifest.json"
    assert at_hand(elsewhere, references, fetch=never, cache=tmp_path) == found
    return found


def test_text_that_lies_elsewhere_is_copied_once(corpus, tmp_path):
    found = copied(corpus, tmp_path)
    assert open_corpus(found.folder) == found
    assert np.array_equal(found.validation(), corpus.validation())
    assert np.array_equal(found.train().windows(np.array([0]), 33), corpus.train().windows(np.array([0]), 33))


def test_images_that_lie_elsewhere_are_copied_once(images, tmp_path):
    found = copied(images, tmp_path)
    assert open_images(found.folder) == found
    numbers = np.arange(images.manifest.images)
    assert np.array_equal(found.pixels(numbers), images.pixels(numbers))
    assert np.array_equal(found.examples("train").rows, images.examples("train").rows)


def test_a_damaged_or_unwritable_copy_is_said(prepared, tmp_path):
    files, elsewhere = files_of(prepared), dataclasses.replace(prepared, folder=tmp_path / "absent")
    victim = next(name for name in files if name.endswith(".bin"))
    damaged = {name: content[::-1] if name == victim else content for name, content in files.items()}
    with pytest.raises(DataError, match=f"{victim}: expected the SHA-256"):
        at_hand(elsewhere, damaged, fetch=lambda content: content, cache=tmp_path / "damaged")
    assert (
        at_hand(elsewhere, files, fetch=lambda content: content, cache=tmp_path / "damaged").digest
        == prepared.digest
    )
    (tmp_path / "full").write_text("a file where a folder should be")
    what = "text" if "validation.bin" in files else "images"
    with pytest.raises(DataError, match=f"the prepared {what} cannot be copied to this machine"):
        at_hand(elsewhere, files, fetch=lambda content: content, cache=tmp_path / "full")


def test_a_file_that_is_gone_is_said(images):
    (images.folder / "tokens.bin").unlink()
    with pytest.raises(DataError, match=r"tokens.bin: cannot be read: No such file or directory"):
        files_of(images)
