"""Small sources of images with questions, and a tokenizer for them."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image
from tokenizers import Tokenizer

from proxy_train.text.tokenizer import train_tokenizer

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
QUESTION = "what colour is it?"


def picture(number: int, name: str, size: int = 8) -> bytes:
    """A picture of one colour; each number gives another file."""
    image = Image.new("RGB", (size, size), COLOURS[name])
    image.putpixel((0, 0), (number % 256, number // 256, 99))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def colours(folder: Path, count: int = 12) -> Path:
    """A folder of pictures, each with the question for its colour."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        name = list(COLOURS)[number % len(COLOURS)]
        (folder / f"{number}.png").write_bytes(picture(number, name))
        lines.append({"image": f"{number}.png", "question": QUESTION, "answer": name})
    write_lines(folder / "questions.jsonl", lines)
    return folder


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def tokenizer_file(folder: Path) -> Path:
    """A byte-level tokenizer that has seen the questions."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer: Tokenizer = train_tokenizer([QUESTION, *COLOURS] * 4, 300)
    path = folder / "tokenizer.json"
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    return path
