"""An exported candidate reads text as its training did."""

import shutil

from tokenizers import Tokenizer, processors

from search.export import load
from tests.speeches import decoded, training_ids
from tests.test_proxy_train_encoding import merged


def test_an_exported_tokenizer_encodes_as_the_training_did(call, tiny_config, tmp_path, text_folder):
    given = merged()
    end = given.token_to_id("</s>")
    given.post_processor = processors.TemplateProcessing(
        single="</s> $A </s>", special_tokens=[("</s>", end)]
    )
    given.enable_truncation(8)
    given.save(str(tmp_path / "given.json"))
    texts = shutil.copytree(text_folder, tmp_path / "texts")
    (texts / "html.txt").write_text("<s>the people</s> of <s>these states</s> " * 9)
    data = tiny_config.data.model_copy(
        update={"source": str(texts), "tokenizer": str(tmp_path / "given.json")}
    )
    config = tiny_config.model_copy(update={"data": data, "candidates": 1, "objectives": ("loss", "params")})
    (tmp_path / "own.yaml").write_text(config.to_yaml())
    assert call("search", "own.yaml", "--name", "own", "--executor", "inline")[0] == 0
    assert call("export", "own", 0, "--to", "winner")[0] == 0
    model, tokenizer = load("winner")
    # Bytes are independent of every merge: no token but the end's may be left of `</s>` in a text.
    text = "<s>the people</s> of"
    ids = tokenizer.encode(text).ids
    assert end not in ids
    assert tokenizer.decode(ids) == text
    assert Tokenizer.from_file("winner/tokenizer.json").encode(text).ids == ids
    assert model.generate(ids, 2)[: len(ids)] == ids
    # What was exported before held the file as it was given.
    shutil.copyfile("given.json", "winner/tokenizer.json")
    assert load("winner")[1].encode(text).ids == ids
    from proxy_train.prepare import prepare

    corpus = prepare(data, cache=tmp_path / "cache" / "frontrunner")
    trained = [*training_ids(corpus).tolist(), *corpus.validation().tolist()]
    html = tokenizer.encode((texts / "html.txt").read_text()).ids
    assert any(trained[place : place + len(html)] == html for place in range(len(trained)))
    assert trained.count(end) == len(list(texts.iterdir()))
