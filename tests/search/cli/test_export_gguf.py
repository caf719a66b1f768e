"""`frontrunner export --format gguf` as a user meets it."""

from pathlib import Path

import pytest

from operators import Architecture, HybridLM, VisionLanguage
from search.runs.exportable import random_weights_of
from search.runs.importing import import_model
from tests.fixtures import Call

gguf = pytest.importorskip("gguf")

SMALL = Architecture.from_shorthand("a f", width=32, vocabulary=64, genes={"attention": {"head_dim": 16}})


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SMALL.to_yaml())
    return tmp_path / "small.yaml"


def test_an_architecture_with_random_weights_comes_back_bit_for_bit(
    call: Call, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--format", "gguf", "--dtype", "F32", "--random-weights"]
    code, out, err = call("export", small, *options, "--to", "small.gguf")
    assert (code, err) == (0, "")
    assert "llama.cpp runs it as llama" in out
    assert "the weights are random" in out
    from frontrunner import load

    monkeypatch.setattr("search.view.profiles.profile_each", lambda *asked, **options: [])
    _, _, err = call("profile", "small.gguf", small)
    assert err == (
        "small.gguf: random weights of its shapes are measured, in the number format of the measurement "
        "instead of its own\n"
    )
    import_model(tmp_path / "small.gguf", tmp_path / "read")
    model = load(tmp_path / "read")[0]
    assert isinstance(model, HybridLM)
    expected, read = random_weights_of(SMALL), model.state_dict()
    assert all(read[name].equal(weight) for name, weight in expected.items())
    assert read.keys() == expected.keys()


def test_a_model_that_sees_is_two_files(call: Call, tmp_path: Path) -> None:
    value = VisionLanguage.parse(
        {
            "tower": {"image_size": 16, "patch_size": 4, "width": 24, "depth": 1, "heads": 3, "hidden": 40},
            "projector": {"pixel_shuffle": 2, "hidden": [44]},
            "language": SMALL,
            "image_token": 63,
        },
        where="",
    )
    (tmp_path / "sees.yaml").write_text(value.to_yaml())
    options = ["--format", "gguf", "--random-weights", "--to", "sees.gguf"]
    code, out, err = call("export", "sees.yaml", *options)
    assert (code, err) == (0, "")
    assert "llama.cpp runs it as llama" in out
    assert "tower and projector are in mmproj-sees.gguf, for --mmproj of llama.cpp" in out
    assert "squares of 16×16 pixels" in out
    assert "llama.cpp puts <|image_start|>, <|image_end|> around an image" in out
    kinds = {
        name: gguf.GGUFReader(tmp_path / name).fields["general.type"].contents()
        for name in ("sees.gguf", "mmproj-sees.gguf")
    }
    assert kinds == {"sees.gguf": "model", "mmproj-sees.gguf": "mmproj"}
    normed = value.tower.model_copy(update={"qk_norm": "head"})
    (tmp_path / "normed.yaml").write_text(value.model_copy(update={"tower": normed}).to_yaml())
    code, _, err = call("export", "normed.yaml", *options[:-1], "x.gguf")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "no mmproj file of llama.cpp holds tower and projector: the nearest, lfm2, has no" in err
    assert not [*tmp_path.glob("*x.gguf")]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--to", "x.gguf"], "an architecture without weights; --random-weights exports random ones"),
        (["--random-weights", "--to", "x.bin"], "x.bin: expected a name that ends in .gguf"),
        (["--random-weights", "--to", "taken.gguf"], "taken.gguf: exists already"),
        (
            ["--without-weights", "--to", "x.gguf"],
            "expected --format architecture, got gguf",
        ),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    call: Call, small: Path, tmp_path: Path, options: list[str], says: str
) -> None:
    (tmp_path / "taken.gguf").write_text("mine")
    code, out, err = call("export", small, "--format", "gguf", *options)
    assert (code, out) == (1, "")
    assert says in err
    assert len(err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == {"small.yaml", "taken.gguf"}
    assert (tmp_path / "taken.gguf").read_text() == "mine"


def test_options_of_gguf_are_refused_for_other_formats(call: Call, small: Path) -> None:
    for options in (["--dtype", "F16"], ["--split-gb", "1"]):
        code, _, err = call("export", small, "--format", "huggingface", *options, "--to", "x")
        assert code == 1
        assert f"{options[0]}: expected --format gguf, got huggingface" in err


def test_the_layer_that_no_model_of_the_engine_holds_is_named(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(Architecture.from_shorthand("gla f", width=64, vocabulary=64).to_yaml())
    options = ["--format", "gguf", "--random-weights", "--to", "x.gguf"]
    code, _, err = call("export", path, *options)
    assert code == 1
    assert "gla" in err
    assert len(err.splitlines()) == 1
