"""An exported candidate reads text as its training did."""

import shutil

import pytest
from safetensors.torch import save_file
from tokenizers import Tokenizer, processors

from operators.base.errors import DataError
from proxy_train.text.prepare import prepare
from proxy_train.train import train
from search.runs import ledger as ledger_module
from search.runs.entry import Entry
from search.runs.export import export, load
from search.runs.folder import RunFolder
from tests.helpers.pretended_evaluations import pretended
from tests.helpers.speeches import training_ids
from tests.helpers.tokenizers import merged


def test_an_exported_tokenizer_encodes_as_the_training_did(job, tiny_config, tmp_path, text_folder):
    given = merged()
    end = given.token_to_id("</s>")
    given.post_processor = processors.TemplateProcessing(
        single="</s> $A </s>", special_tokens=[("</s>", end)]
    )
    given.enable_truncation(8)
    given.save(str(tmp_path / "given.json"))
    texts = shutil.copytree(text_folder, tmp_path / "texts")
    html = "<s>the people</s> of <s>these states</s> " * 9
    (texts / "html.txt").write_text(html)
    changes = {"source": str(texts), "tokenizer": str(tmp_path / "given.json")}
    config = tiny_config.model_copy(update={"data": tiny_config.data.model_copy(update=changes)})
    corpus = prepare(config.data, cache=tmp_path / "cache")
    trained = [*training_ids(corpus).tolist(), *corpus.validation().tolist()]
    assert trained.count(end) == len(list(texts.iterdir()))

    folder, architecture = RunFolder(tmp_path / "run"), job.architecture
    folder.path.mkdir()
    ledger = ledger_module.create(folder.ledger, config, started="now")
    # As an earlier version wrote it into a run's folder.
    shutil.copyfile(tmp_path / "given.json", folder.tokenizer)
    folder.weights(0).parent.mkdir()
    trained_model = train(architecture, corpus, config.proxy, seed=0)
    save_file(trained_model.weights, folder.weights(0))
    evaluation = pretended(job).evaluation.model_copy(update={"proxy": trained_model.score})
    winner = tmp_path / "winner"
    export(folder, ledger, Entry(0, architecture, (), "sample", evaluation, 0), winner)

    model, tokenizer = load(winner)
    ids = tokenizer.encode(html).ids
    assert any(trained[place : place + len(ids)] == ids for place in range(len(trained)))
    assert tokenizer.decode(ids) == html
    assert Tokenizer.from_file(str(winner / "tokenizer.json")).encode(html).ids == ids
    assert model.generate(ids[:9], 2)[:9] == ids[:9]
    # As an earlier version exported it.
    shutil.copyfile(tmp_path / "given.json", winner / "tokenizer.json")
    assert load(winner)[1].encode(html).ids == ids
    (winner / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"winner/tokenizer\.json: not a tokenizer\.json that can be read"):
        load(winner)
