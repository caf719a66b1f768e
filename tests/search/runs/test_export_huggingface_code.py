"""Any model exported with its own code computes the same in transformers, without this project."""

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from operators import Architecture, HybridLM, registry
from operators.base.errors import ArchitectureError, DataError, RunError
from proxy_train.text.tokenizer import ids_needed
from search.cli.app import app
from search.export import load
from search.runs.code_modules import code_modules
from search.runs.export_huggingface_code import export_huggingface_code
from search.runs.exportable import Exportable, exportable
from search.runs.importing import import_model
from tests.helpers.any_architecture import AROUND, SEEDS, SHAPES, VOCABULARY, any_architecture
from tests.helpers.exportable_models import random_model
from tests.helpers.only_transformers import only_transformers
from tests.helpers.tokenizers import merged

transformers = pytest.importorskip("transformers")

PROMPT, NEW = 37, 64
LENGTHS = (PROMPT, 5, 1)


def gla(**fields: Any) -> Architecture:
    return Architecture.from_shorthand("gla swiglu", width=32, vocabulary=VOCABULARY, **fields)


def exported(model: HybridLM, to: Path, **rest: Any) -> Path:
    weights = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    export_huggingface_code(Exportable("x", model.architecture, weights, **rest), to)
    return to


def opened(folder: Path, **rest: Any) -> Any:
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, output_loading_info=True, **rest
    )
    assert not any(report.values()), report
    # A cache that begins with little room has to grow.
    sys.modules[type(model).__module__].__dict__["_ROOM"] = 3
    return model.eval()


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers are too small for two
    yield
    torch.set_num_threads(threads)


def test_the_architectures_have_every_operator_and_every_gene() -> None:
    lacking = set(registry.library_names()) ^ set(SHAPES)
    assert not lacking, f"{sorted(lacking)}: write sizes into SHAPES of tests/helpers/any_architecture.py"
    for operator, shape in SHAPES.items():
        assert set(shape) == set(registry.get(operator).shape.model_fields), operator
    fields = {"name", "width", "vocabulary", "layers"}
    assert set(AROUND) | fields == set(Architecture.model_fields)
    assert max(len(each) for shape in [*SHAPES.values(), AROUND] for each in shape.values()) <= len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_operator_is_the_same_in_transformers_alone(seed: int, tmp_path: Path) -> None:
    model = random_model(any_architecture(seed))
    folder = exported(model, tmp_path / "folder")
    tokens = torch.randint(VOCABULARY, (1, 64), generator=torch.Generator().manual_seed(seed))
    padded, mask = torch.zeros(2, len(LENGTHS), PROMPT, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        padded[row, PROMPT - length :] = tokens[0, :length]
        mask[row, PROMPT - length :] = 1
    new = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad(), only_transformers(tmp_path / "code"):
        theirs = opened(folder)
        whole = theirs(tokens, use_cache=False).logits
        steps, cache = [], None
        for part in tokens.split([20, PROMPT - 20, *[1] * (64 - PROMPT)], 1):
            out = theirs(part, past_key_values=cache)
            steps.append(out.logits)
            cache = out.past_key_values
        rows = theirs(padded, attention_mask=mask).logits
        texts = theirs.generate(padded, attention_mask=mask, **new)[:, PROMPT:]
    with torch.no_grad():
        ours = model(tokens)
    close = 1e-4 * float(ours.abs().max())
    assert ours.std() > 0.1
    assert (whole - ours).abs().max() <= close
    assert (torch.cat(steps, 1) - ours).abs().max() <= close
    for row, length in enumerate(LENGTHS):
        assert (rows[row, PROMPT - length :] - ours[0, :length]).abs().max() <= close, length
        prompt = tokens[0, :length].tolist()
        count = NEW if length == PROMPT else 9
        assert texts[row, :count].tolist() == model.generate(prompt, count)[length:], length


def test_a_folder_is_saved_again_and_read_in_bfloat16(tmp_path: Path) -> None:
    model = random_model(any_architecture(0))
    folder = exported(model, tmp_path / "folder")
    tokens = torch.arange(40)[None]
    with torch.no_grad(), only_transformers(tmp_path / "code"):
        theirs = opened(folder)
        theirs.save_pretrained(tmp_path / "again")
        assert torch.equal(opened(tmp_path / "again")(tokens).logits, theirs(tokens).logits)
        half = opened(folder, dtype=torch.bfloat16)
        written = half(tokens).logits
    ours = HybridLM(model.architecture, backend="reference", dtype=torch.bfloat16)
    ours.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(written, ours(tokens))
    kinds = {f"model.{name}": tensor.dtype for name, tensor in ours.state_dict().items()}
    assert {name: tensor.dtype for name, tensor in half.state_dict().items()} == kinds


def test_beams_sampling_and_training(tmp_path: Path) -> None:
    model = random_model(gla(meta_tokens=2))
    folder = exported(model, tmp_path / "folder")
    prompt = torch.tensor([[0, 0, 3, 5], [9, 2, 6, 5]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    new = {"attention_mask": mask, "max_new_tokens": 12, "pad_token_id": 0}
    with only_transformers(tmp_path / "code"):
        theirs = opened(folder)
        beams = [
            theirs.generate(prompt, num_beams=3, do_sample=False, use_cache=cached, **new)
            for cached in (True, False)
        ]
        drawn = []
        for cached in (True, False):
            torch.manual_seed(5)
            drawn.append(theirs.generate(prompt, do_sample=True, use_cache=cached, **new))
        theirs.train()
        # A trainer pads at the right.
        prompt, mask = torch.tensor([[3, 5, 0, 0], [9, 2, 6, 5]]), mask.flip(1)
        labels = prompt.masked_fill(mask == 0, -100)
        loss = theirs(prompt, attention_mask=mask, labels=labels).loss
        # What a trainer passes where it adds gradients up: how many tokens are predicted in all its batches.
        summed = theirs(prompt, attention_mask=mask, labels=labels, num_items_in_batch=8).loss
        loss.backward()
    assert torch.equal(*beams)
    assert torch.equal(*drawn)
    logits = [model(prompt[:1, :2])[0, :1], model(prompt[1:])[0, :3]]
    targets = torch.tensor([5, 2, 6, 5])
    expected = torch.nn.functional.cross_entropy(torch.cat(logits), targets)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(summed, expected * 4 / 8)
    expected.backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(parameter.grad, model.get_parameter(name.removeprefix("model.")).grad)


def test_a_pipeline_writes_our_text(tmp_path: Path) -> None:
    tokenizer = merged()
    architecture = gla(meta_tokens=2).model_copy(update={"vocabulary": ids_needed(tokenizer)})
    model = random_model(architecture)
    folder = exported(model, tmp_path / "folder", tokenizer=tokenizer, end="</s>", context=77)
    with only_transformers(tmp_path / "code"):
        write = transformers.pipeline("text-generation", model=str(folder), trust_remote_code=True)
        texts = ["The people", "We"]
        written = write(texts, max_new_tokens=20, return_full_text=False, batch_size=2)
    end = tokenizer.token_to_id("</s>")
    for text, (answer,) in zip(texts, written, strict=True):
        ids = tokenizer.encode(text).ids
        answered = model.generate(ids, 20, stop=end)[len(ids) :]
        assert answer["generated_text"] == tokenizer.decode([each for each in answered if each != end])
    read = exportable(str(folder), None, tmp_path)
    assert (read.context, read.end) == (77, "</s>")


@pytest.mark.parametrize("saved_by_transformers", [False, True])
def test_a_folder_is_read_back(saved_by_transformers: bool, tmp_path: Path) -> None:
    tokenizer = merged()
    architecture = gla(meta_tokens=2, tied_embeddings=False, name="mine")
    model = random_model(architecture.model_copy(update={"vocabulary": ids_needed(tokenizer)}))
    folder = exported(model, tmp_path / "folder", tokenizer=tokenizer)
    if saved_by_transformers:
        with only_transformers(tmp_path / "code"):
            opened(folder).save_pretrained(tmp_path / "again")
        (tmp_path / "again" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
        folder = tmp_path / "again"
    import_model(folder, tmp_path / "ours")
    ours, read = load(tmp_path / "ours")
    assert ours.architecture == model.architecture
    assert read.get_vocab() == tokenizer.get_vocab()
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"architecture": {', '"structure": {', r"config\.json: architecture: expected a mapping, got None"),
        ('"operator": "gla"', '"operator": "glue"', r"architecture: .*unknown operator 'glue'"),
        (
            '"tie_word_embeddings": false',
            '"tie_word_embeddings": true',
            "tie_word_embeddings: expected False",
        ),
        ('"architecture": {', '"vocab_size": 9,"architecture": {', "vocab_size: expected 67, got 9"),
        ('"architecture": {', '"sliding": 9,"architecture": {', "sliding: expected a key that is known"),
    ],
)
def test_a_config_that_is_not_ours_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    file = exported(random_model(gla()), tmp_path / "folder") / "config.json"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ArchitectureError, match=message) as error:
        import_model(file.parent, tmp_path / "ours")
    assert "\n" not in str(error.value)


def test_each_name_that_a_file_takes_of_another_is_there() -> None:
    """Such as an error that an operator raises, which the plain stand-in has to have."""
    trees = {name: ast.parse(text) for name, text in code_modules(registry.library_names()).items()}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = {str(node.module)}
            elif isinstance(node, ast.ImportFrom):
                missing = {alias.name for alias in node.names} - top_names(trees[f"{node.module}.py"])
                assert not missing, f"{name}: {missing} of {node.module}"
                continue
            else:
                continue
            allowed = {*sys.stdlib_module_names, "torch", "transformers"}
            assert {module.partition(".")[0] for module in modules} <= allowed, name


def top_names(tree: ast.Module) -> set[str]:
    """What a module defines or imports at its top."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names}
            case ast.Assign():
                names |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def test_an_operator_of_another_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(gla())
    monkeypatch.setattr(registry, "library_names", lambda: ("attention", "swiglu"))
    with pytest.raises(ArchitectureError, match="x: layer 0: gla is an operator of another package"):
        exported(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_that_does_not_match_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tokenizer has ids up to"):
        exported(random_model(gla()), tmp_path / "out", tokenizer=merged())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="exists already"):
        exported(random_model(gla()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_model_that_no_class_holds_is_sent_here(tmp_path: Path) -> None:
    file = tmp_path / "gla.yaml"
    file.write_text(gla().to_yaml(), encoding="utf-8")
    to = tmp_path / "out"
    command = ["export", str(file), "--to", str(to), "--format"]
    refused = CliRunner().invoke(app, [*command, "huggingface", "--random-weights"])
    assert "--format huggingface-code" in str(refused.exception)
    bare = CliRunner().invoke(app, [*command, "huggingface-code"])
    assert "--random-weights" in str(bare.exception)
    assert not to.exists()
    assert CliRunner().invoke(app, [*command, "huggingface-code", "--random-weights"]).exit_code == 0
    assert (to / "modeling_frontrunner.py").is_file()
