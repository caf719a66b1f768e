"""A model has one score on a text: as a folder of ours, as a folder for transformers, and in transformers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, processors

from operators import HybridLM
from operators.base.errors import DataError, FrontrunnerError
from search.runs.evaluating import TextScore, evaluate
from search.runs.export_huggingface import export_huggingface
from search.runs.exportable import Exportable, exportable
from search.runs.generating import generate
from search.runs.importing import import_model
from tests.fixtures import Call
from tests.helpers.exportable_models import opened_by_transformers
from tests.helpers.exported_folders import WINDOW, model_of, own_folder

transformers = pytest.importorskip("transformers")

DOCUMENTS = ["the people of </s> these states – ¿naïve?\r\n" * 3, "a government\n", "x"]
STRIDE = 10


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for number, document in enumerate(DOCUMENTS):
        (folder / f"{number}.txt").write_bytes(document.encode())
    return folder


@torch.no_grad()
def in_transformers(folder: Path, *, rows: int, before: int = 0) -> tuple[float, int]:
    """The summed loss (nats) and the number of scored tokens, by transformers alone.

    The text is its documents, each with `</s>` behind it, and one `</s>` before all. Windows read 24 tokens,
    each 10 behind the one before, and score what follows the last scored token.

    rows: logits that count.
    before: tokens that the tokenizer puts before a text, which stand before each window.
    """
    model, tokenizer = opened_by_transformers(folder), transformers.AutoTokenizer.from_pretrained(folder)
    meta = tokenizer("x").input_ids[:before]
    ids = [tokenizer.eos_token_id]
    for document in DOCUMENTS:
        ids += [*tokenizer(document).input_ids[before:], tokenizer.eos_token_id]
    nats, scored, start = 0.0, 0, 0
    while scored < len(ids) - 1:
        start = min(start, len(ids) - 1 - WINDOW)
        read = torch.tensor([[*meta, *ids[start : start + WINDOW]]])
        logits = model(read, use_cache=False).logits[0, before:, :rows].double()
        for place in range(scored - start, WINDOW):
            nats -= float(logits[place].log_softmax(0)[ids[start + place + 1]])
        scored, start = start + WINDOW, start + STRIDE
    return nats, len(ids) - 1


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("a f", {}),
    "zeros": ("m f f a", {}),
    "meta-normalized": ("a f", {"meta_tokens": 3, "normalized_head": True}),
    "meta-tied": ("a f", {"meta_tokens": 2}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_exported_folder_has_the_score_that_transformers_gives_it(
    case: str, tmp_path: Path, text: Path
) -> None:
    shorthand, changes = CASES[case]
    model = model_of(shorthand, **changes)
    export_huggingface(model, tmp_path / "out")
    import_model(tmp_path / "out", tmp_path / "back")
    own = own_folder(model, tmp_path / "own")
    scores = {
        name: evaluate(tmp_path / name, str(text), window=WINDOW, stride=STRIDE)
        for name in ("own", "out", "back")
    }
    nats, tokens = in_transformers(
        tmp_path / "out", rows=model.architecture.vocabulary, before=changes.get("meta_tokens", 0)
    )
    size = sum(len(document.encode()) for document in DOCUMENTS)
    for score in scores.values():
        assert score.scored_tokens == tokens
        assert score.nats_per_token == pytest.approx(nats / tokens, rel=1e-5)
        assert score.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-5)
        assert (score.bytes, score.bits_per_byte) == (
            size,
            pytest.approx(nats / math.log(2) / size, rel=1e-5),
        )
        assert (score.documents, score.window, score.stride, score.first) == (3, WINDOW, STRIDE, "</s>")
    assert evaluate(own, str(text)).window == WINDOW  # that of its training
    assert evaluate(tmp_path / "out", str(text)).window == 64  # `max_position_embeddings`


def test_meta_tokens_come_back_from_rows_of_the_vocabulary(tmp_path: Path) -> None:
    model = model_of(meta_tokens=3)
    export_huggingface(model, tmp_path / "out")
    back = exportable(str(tmp_path / "out"), None, tmp_path)
    assert back.architecture.model_copy(update={"name": ""}) == model.architecture
    assert all(torch.equal(back.weights[name], weight) for name, weight in model.weights.items())
    assert back.tokenizer is not None
    assert model.tokenizer is not None
    assert back.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    assert back.tokenizer.encode(DOCUMENTS[0]).ids == model.tokenizer.encode(DOCUMENTS[0]).ids
    export_huggingface(back, tmp_path / "again")
    first, second = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("out", "again"))
    assert first == second


def published_folder(tmp_path: Path, *, begin: bool) -> tuple[Path, Exportable]:
    """A folder of ours as `import` writes it, whose tokenizer puts `<s>` before a text or does not."""
    model, folder = model_of(), own_folder(model_of(), tmp_path / "published")
    (folder / "provenance.json").unlink()
    tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text())
    content = json.loads(tokenizer.to_str())
    names = {"</s>": "</x>"}  # no token that ends a document by its name
    content["model"]["vocab"] = {names.get(token, token): i for token, i in content["model"]["vocab"].items()}
    content["model"]["merges"].pop()
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if begin:
        tokenizer.add_special_tokens(["<s>"])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, model


@pytest.mark.parametrize("begin", [True, False])
@torch.no_grad()
def test_a_published_tokenizer_begins_documents_as_it_does(begin: bool, tmp_path: Path, text: Path) -> None:
    folder, model = published_folder(tmp_path, begin=begin)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    score = evaluate(folder, str(text), window=500)
    ids = [index for document in DOCUMENTS for index in tokenizer.encode(document).ids]
    assert score.scored_tokens == len(ids) - 1 == score.window
    assert (score.before, score.behind, score.first) == (
        (("<s>",), None, "<s>") if begin else ((), None, None)
    )
    built = HybridLM(model.architecture)
    built.load_state_dict(dict(model.weights))
    losses = -built(torch.tensor([ids[:-1]]))[0].log_softmax(1)[range(len(ids) - 1), ids[1:]]
    assert score.nats_per_token == pytest.approx(float(losses.mean()), rel=1e-5)
    if not begin:
        (tmp_path / "a.txt").write_text("a")
        with pytest.raises(DataError, match="text too short: expected at least 2 tokens, got 1"):
            evaluate(folder, str(tmp_path / "a.txt"))


def test_the_name_of_a_special_token_in_a_text_is_text(tmp_path: Path) -> None:
    folder, _ = published_folder(tmp_path, begin=True)
    (tmp_path / "a.txt").write_text("a<s>")
    assert evaluate(folder, str(tmp_path / "a.txt")).scored_tokens == 4  # a < s >


def test_a_text_ends_where_the_model_ends_it(tmp_path: Path) -> None:
    model = model_of()
    own_folder(model, tmp_path / "own")
    first = generate(tmp_path / "own", "the people", tokens=20)
    assert model.tokenizer is not None
    prompt = model.tokenizer.encode("the people").ids
    assert (first.prompt_tokens, first.tokens, first.ended) == (len(prompt), 20, False)
    weights = dict(model.weights)
    built = HybridLM(model.architecture)
    built.load_state_dict(weights)
    # The rows of the end and of the first token that the model writes change places.
    chosen, end = built.generate(prompt, 1)[-1], 258
    rows = torch.arange(len(weights["embedding.weight"]))
    rows[[chosen, end]] = rows[[end, chosen]]
    swapped = {**weights, "embedding.weight": weights["embedding.weight"][rows]}
    save_file(swapped, tmp_path / "own" / "model.safetensors")
    assert chosen not in prompt
    ended = generate(tmp_path / "own", "the people", tokens=20)
    assert (ended.text, ended.tokens, ended.ended) == ("the people", 1, True)


def test_the_commands_print_what_the_functions_return(call: Call, tmp_path: Path, text: Path) -> None:
    own_folder(model_of(), tmp_path / "own")
    code, out, err = call("evaluate", "own", text, "--window", 16, "--stride", 4, "--json")
    assert (code, err) == (0, "reads 3 files (3 .txt)\n")
    score = evaluate("own", str(text), window=16, stride=4)
    assert TextScore(**{**json.loads(out), "before": ()}) == score
    shown = call("evaluate", "own", text, "--window", 16, "--stride", 4)[1]
    for part in (
        f"{score.nats_per_token:.4f} nats per token, perplexity {score.perplexity:.2f}, ",
        f"{score.bits_per_byte:.4f} bits per byte",
        f"{score.scored_tokens} tokens scored, of {score.bytes} bytes; documents: 3, each with </s> ",
        f"windows: {score.windows} of 16 tokens, of which 12 were read before and are context alone; "
        "the first token is predicted from </s>",
    ):
        assert part in shown
    longer = f"the windows are longer than the {WINDOW} tokens that the model was made for"
    assert longer not in shown
    assert longer in call("evaluate", "own", text, "--window", 2 * WINDOW)[1]
    drawn = ("the people", "--tokens", 9, "--temperature", 1.5, "--top-k", 40, "--top-p", 0.9, "--seed", 3)
    code, out, err = call("generate", "own", *drawn)
    settings: dict[str, Any] = {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "seed": 3}
    written = generate("own", "the people", tokens=9, **settings)
    assert (code, out, err) == (0, written.text + "\n", "")
    assert json.loads(call("generate", "own", *drawn, "--json")[1])["text"] == written.text
    assert written.text != generate("own", "the people", tokens=9).text


def test_what_cannot_be_evaluated_or_written_is_one_line(call: Call, tmp_path: Path, text: Path) -> None:
    own = own_folder(model_of(), tmp_path / "own")
    for name, file in (("bare", "model.safetensors"), ("mute", "tokenizer.json")):
        own_folder(model_of(), tmp_path / name)
        (tmp_path / name / file).unlink()
    (tmp_path / "small.yaml").write_text(model_of().architecture.to_yaml())
    other = own_folder(model_of(vocabulary=200), tmp_path / "other")  # its tokenizer has 259 tokens
    nan = own_folder(model_of(), tmp_path / "nan")
    weights = {name: tensor.clone() for name, tensor in model_of().weights.items()}
    weights["norm.weight"][0] = math.nan
    save_file(weights, nan / "model.safetensors")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes(b"na\xefve")
    for arguments, message in (
        (("evaluate", own, "nothing.txt"), "nothing.txt: no such file or folder"),
        (("evaluate", own, "empty.txt"), "empty.txt: expected text, the file is empty"),
        (("evaluate", own, "blank.txt"), "blank.txt: expected text, the file is empty"),
        (("evaluate", own, "latin.txt"), "latin.txt: expected UTF-8 text, got byte 0xef"),
        (("evaluate", "bare", text), "bare: has no model.safetensors, the weights"),
        (("evaluate", "mute", text), "mute: expected a model with its tokenizer: mute has no tokenizer.json"),
        (("evaluate", "small.yaml", text), "small.yaml: an architecture without weights"),
        (("evaluate", "smollm2-135m", text), "smollm2-135m: an architecture without weights"),
        (("evaluate", "nobody", text), "nobody: neither a file nor a shipped architecture"),
        (("evaluate", "nobody:3", text), "unknown run 'nobody'"),
        (("evaluate", other, text), "tokenizer: the text has the token id 2"),
        (("evaluate", nan, text), "loss nan at tokens 0 to"),
        (
            ("evaluate", own, text, "--stride", 65, "--window", 64),
            "stride: expected from 1 to the window, 64",
        ),
        (("evaluate", own, text, "--device", "tpu"), "unknown device 'tpu'"),
        (("evaluate", "", text), "model: expected its name, got nothing"),
        (("generate", own, ""), "prompt: expected at least one character, got none"),
        (("generate", own, "a\udc80"), "prompt: expected text in UTF-8, got a bad byte at 1"),
        (("generate", "mute", "a"), "mute: expected a model with its tokenizer"),
        (("generate", "bare", "a"), "bare: has no model.safetensors, the weights"),
        (("generate", nan, "a"), "logits: expected finite numbers"),
        (("generate", other, "the ú"), "prompt: token "),
        (("generate", own, "a", "--top-k", 3), "--top-k 3: expected --temperature with it"),
        (("generate", own, "a", "--seed", 3), "--seed 3: expected --temperature with it"),
        (("generate", own, "a", "--temperature", 1, "--top-p", 0), "top_p: expected a number above 0"),
    ):
        code, out, err = call(*arguments)
        assert code == 1, arguments
        assert out in ("", "reads 3 files (3 .txt)\n")
        assert message in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    for option, value in (("--window", 1), ("--window", 2**21), ("--stride", 0)):
        assert call("evaluate", own, text, option, value)[0] == 2
    for option, value in (("--temperature", -1), ("--temperature", "nan"), ("--top-k", 0), ("--tokens", 0)):
        assert call("generate", own, "a", option, value)[0] == 2


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("provenance.json", '{"config": 5}', "provenance.json: "),
        (
            "provenance.json",
            '{"config": {"proxy": [1]}}',
            "config: proxy: expected a mapping of keys to values",
        ),
        (
            "provenance.json",
            '{"config": {"proxy": {"sequence_length": "x"}}}',
            "config: proxy.sequence_length: ",
        ),
        ("provenance.json", '{"config": {"proxy": {"sequence_length": 0}}}', "expected at least 1, got 0"),
        ("provenance.json", '{"config": {"data": {"end_of_document": 3}}}', "config: data.end_of_document: "),
        ("provenance.json", '{"config": {"data": {"source": [3]}}}', "config: data.source"),
        ("provenance.json", "{", "cannot be read as JSON"),
        ("scores.json", '{"metrics": [1]}', "scores.json: metrics: expected a mapping"),
        ("tokenizer.json", "{", "tokenizer.json: not a tokenizer.json that can be read"),
        ("model.safetensors", "x", "not an exported candidate"),
    ],
)
def test_a_damaged_file_of_a_folder_is_one_line(
    file: str, content: str, message: str, tmp_path: Path
) -> None:
    folder = own_folder(model_of(), tmp_path / "own")
    (folder / file).write_text(content)
    with pytest.raises(FrontrunnerError) as refusal:
        evaluate(folder, "sotu")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
