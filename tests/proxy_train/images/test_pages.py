"""Pages for reading: what is drawn is what the text says, within the picture, the same for one seed."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from operators.base.errors import DataError
from proxy_train.images.image_settings import ImageSettings
from proxy_train.images.pages import NAMES, render_pages
from proxy_train.images.prepare import prepare_images
from tests.helpers.image_sources import tokenizer_file

Image = pytest.importorskip("PIL.Image")
ImageFont = pytest.importorskip("PIL.ImageFont")

TEXT = "one two three four five six seven eight naïve nine ten eleven twelve extraordinarilylongword thirteen"


def rendered(folder: Path, **changes: Any) -> dict[str, str]:
    """The pictures and their texts."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    (folder / "text" / "a.txt").write_text(TEXT, encoding="utf-8")
    options = {"count": 4, "image_size": 48, "words": 2, "font_size": 10, **changes}
    count = render_pages(str(folder / "text"), folder / "pages", **options)
    rows = [json.loads(line) for line in (folder / "pages" / NAMES).read_text().splitlines()]
    assert len(rows) == count == len(list((folder / "pages").glob("*.png")))
    return {row["image"]: row["text"] for row in rows}


def ink(path: Path) -> np.ndarray:
    """Where a picture is not white, as booleans."""
    return np.array(Image.open(path).convert("L")) < 250


def test_pictures_hold_different_words_of_the_text_within_their_edges(tmp_path: Path) -> None:
    pages = rendered(tmp_path, count=50)
    words = [word for word in TEXT.split() if word.isascii()]
    pairs = {f"{a} {b}" for a, b in zip(words[::2], words[1::2], strict=False)}
    assert set(pages.values()) == {pair for pair in pairs if "extraordinarily" not in pair}
    for name in pages:
        drawn = ink(tmp_path / "pages" / name)
        assert drawn.any()
        assert not drawn[:1].any() | drawn[-1:].any() | drawn[:, :1].any() | drawn[:, -1:].any()


def test_what_is_drawn_is_the_text(tmp_path: Path) -> None:
    """The amount of ink is that of the words in this font, drawn apart."""
    face = ImageFont.load_default(10)
    for name, text in rendered(tmp_path, words=1, count=3).items():
        mask = face.getmask(text, mode="L")
        expected = (np.array(mask).reshape(mask.size[::-1]) > 5).sum()
        assert ink(tmp_path / "pages" / name).sum() == expected


def test_a_seed_fixes_everything(tmp_path: Path) -> None:
    first, again, other = (
        rendered(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again != other
    for name in first:
        assert (tmp_path / "a/pages" / name).read_bytes() == (tmp_path / "b/pages" / name).read_bytes()


def test_pages_are_a_source_of_images(tmp_path: Path) -> None:
    rendered(tmp_path)
    settings = ImageSettings(source=str(tmp_path / "pages"), image_size=48)
    corpus = prepare_images(settings, tokenizer_file(tmp_path), cache=tmp_path / "cache")
    assert (corpus.manifest.images, corpus.manifest.train_examples) == (4, 3)


def test_a_font_of_a_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    folder = tmp_path / "fontpkg_some" / "files"
    folder.mkdir(parents=True)
    of_matplotlib = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    (folder / "Some-Regular.ttf").symlink_to(of_matplotlib)
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "fontpkg_some")])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "fontpkg_some" else None)
    by_package = rendered(tmp_path / "a", font="fontpkg-some", words=1)
    by_file = rendered(tmp_path / "b", font=str(of_matplotlib), words=1)
    assert by_package == by_file
    for name in by_file:
        assert (tmp_path / "a/pages" / name).read_bytes() == (tmp_path / "b/pages" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"font": "fontpkg-nowhere"}, "font 'fontpkg-nowhere': neither a file nor an installed package"),
        ({"font": ""}, "font '': neither a file nor an installed package"),
        ({"font": __file__}, "expected a .ttf or .otf file"),
        ({"font_size": 48}, "words fit into 48×48 pixels at font size 48"),
        ({"font_size": 10**11}, "font size 100000000000: expected at most 48 pixels"),
        ({"image_size": 8193}, "image size 8193: expected at most 8192 pixels"),
        ({"words": 99}, "no 99 words fit into"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError) as caught:
        rendered(tmp_path, **changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    rendered(tmp_path)
    with pytest.raises(DataError, match="pages: expected a new or an empty folder"):
        rendered(tmp_path)
