"""What a name gives to train: weights, the text that they were trained on, and their own tokenizer."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from operators.base.errors import ConfigError, RunError
from proxy_train.text.prepare import prepare
from search.config.run import RunConfig
from search.runs import training_start
from search.runs.run import drive_to_end, start
from search.runs.training_start import Beginning, beginning
from tests.helpers.made_up_profile import measure_on_made_up_device


@pytest.fixture(scope="module")
def results(tiny_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run `first`, all of whose weights are kept."""
    folder = tmp_path_factory.mktemp("results")
    config = tiny_config.model_copy(update={"candidates": 2, "keep_weights": "all", "seed": 5})
    with pytest.MonkeyPatch.context() as patch:
        measure_on_made_up_device(patch)
        run = start(config, results=folder, name="first", executor="inline", address=None)
        drive_to_end(run, executor="inline", address=None)
    return folder


def same_weights(begins: Beginning, file: Path) -> bool:
    stored = load_file(file)
    assert begins.weights is not None
    assert stored.keys() <= begins.weights.keys()
    return all(torch.equal(begins.weights[name], tensor) for name, tensor in stored.items())


def test_a_candidate_goes_on_with_its_weights_behind_what_it_read(
    results: Path, tiny_config: RunConfig
) -> None:
    begins = beginning("first:0", results)
    assert same_weights(begins, results / "first" / "weights" / "00000.safetensors")
    assert (begins.data, begins.proxy) == (tiny_config.data.absolute(), tiny_config.proxy)
    assert begins.origin["run"] == "first"
    trained = begins.training(tokens=2048, seed=5)
    assert (trained.settings.steps, trained.start.batches) == (32, 16)  # the proxy read 1024 tokens of 64
    assert begins.training(tokens=2048, seed=6).start.batches == 0  # another seed has other batches
    fresh = beginning("first:0", results, fresh=True)
    assert fresh.weights is fresh.training(tokens=None, seed=0).start is None
    assert fresh.architecture == begins.architecture


def test_the_digest_tells_weights_apart(results: Path) -> None:
    digests = [
        beginning(f"first:{number}", results).training(tokens=None, seed=0).start.digest
        for number in (0, 1, 0)
    ]
    assert digests[0] == digests[2] != digests[1]


def test_a_candidate_without_weights_says_so_and_begins_anew(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "results")
    shutil.rmtree(tmp_path / "results" / "first" / "weights")
    begins = beginning("first:0", tmp_path / "results")
    assert begins.weights is None
    assert begins.lacking.startswith("candidate 0 of run first has no weights")


def test_another_text_is_read_with_the_model_s_own_tokenizer(
    results: Path, tmp_path: Path, tiny_config: RunConfig
) -> None:
    (tmp_path / "other.txt").write_text("quite other words, zebras and xylophones. " * 200)
    begins = beginning("first:0", results, data=[str(tmp_path / "other.txt")])
    assert begins.data.source == str(tmp_path / "other.txt")
    corpus = prepare(begins.data, cache=tmp_path / "cache")
    assert (
        corpus.tokenizer().to_str()
        == prepare(tiny_config.data, cache=tmp_path / "cache").tokenizer().to_str()
    )
    assert corpus.vocabulary == begins.architecture.vocabulary
    assert begins.training(tokens=None, seed=5).start.batches == 0
    # Random weights mean nothing yet, so that the text may have a tokenizer of its own.
    assert beginning("first:0", results, data=["a.txt", "b.txt"], fresh=True).data.tokenizer is None
    with pytest.raises(ConfigError, match=r"tokens: expected at least one batch of 64 .*, got 1"):
        begins.training(tokens=1, seed=0)


def test_a_configuration_takes_the_place_of_the_model_s(results: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("proxy: {tokens: 640, batch_size: 1, sequence_length: 64}\n")
    begins = beginning("first:0", results, config=tmp_path / "own.yaml")
    assert begins.data.source == "sotu"
    assert begins.data.tokenizer == str(results / "first" / "tokenizer.json")
    assert begins.training(tokens=None, seed=0).settings.steps == 10


def test_smaller_budgets_are_left_out(results: Path, tmp_path: Path) -> None:
    proxy = "proxy: {tokens: 640, batch_size: 1, sequence_length: 64, schedule: wsd, budgets: [320]}\n"
    (tmp_path / "own.yaml").write_text(proxy)
    settings = (
        beginning("first:0", results, config=tmp_path / "own.yaml").training(tokens=256, seed=0).settings
    )
    assert (settings.tokens, settings.budgets) == (256, ())


def test_architectures_begin_with_random_weights(tmp_path: Path) -> None:
    begins = beginning("tiny-hybrid", tmp_path)
    assert begins.weights is None
    assert begins.data.vocabulary == begins.architecture.vocabulary


def test_a_folder_that_is_still_trained_is_no_model(results: Path, tmp_path: Path) -> None:
    kept = beginning("first:0", results).training(tokens=None, seed=0)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "architecture.yaml").write_text(kept.architecture.to_yaml())
    (tmp_path / "kept" / "training.json").write_text(json.dumps({"tokens": 640}))
    with pytest.raises(RunError, match="its training has not ended; the same `frontrunner train` goes on"):
        beginning(str(tmp_path / "kept"), results)


def test_a_damaged_record_is_one_line(results: Path, tmp_path: Path) -> None:
    architecture = beginning("first:0", results).architecture
    (tmp_path / "architecture.yaml").write_text(architecture.to_yaml())
    (tmp_path / "provenance.json").write_text(json.dumps({"config": {"data": {"vocabulary": "many"}}}))
    with pytest.raises(RunError, match=r"provenance\.json: config: vocabulary: expected a whole number"):
        beginning(str(tmp_path), results)


def test_a_hugging_face_folder_goes_on_with_its_tokenizer(results: Path, tmp_path: Path) -> None:
    from search.runs.export_huggingface_code import export_huggingface_code
    from search.runs.exportable import exportable

    export_huggingface_code(exportable("first:0", None, results), tmp_path / "published")
    begins = beginning(str(tmp_path / "published"), results)
    assert begins.data.tokenizer == str(tmp_path / "published" / "tokenizer.json")
    assert same_weights(begins, results / "first" / "weights" / "00000.safetensors")
    (tmp_path / "published" / "tokenizer.json").unlink()
    with pytest.raises(RunError, match=r"no folder with a tokenizer\.json; `frontrunner import"):
        beginning(str(tmp_path / "published"), results)
    assert training_start.beginning(str(tmp_path / "published"), results, fresh=True).weights is None
