"""The settings of the images that models are trained on."""

from typing import Annotated, Self

from pydantic import Field

from operators.base.value import Value
from operators.vision.vision_language import Resize
from proxy_train.text.documents import located

EASY_VQA = "easy-vqa"
LARGEST = 4096  # pixels of a side; a prepared image of this size takes 48 MiB


class ImageSettings(Value):
    """Images with questions and answers, or with text.

    source: `easy-vqa` (the installed package of that name), or one path or several: .jsonl and .json files
        that name images, .parquet and .arrow files that hold them, or folders of these.
    image_column: the key or column of the image: its path from the file's folder on, or its bytes.
    question_column: the key or column of the question.
    answer_column: the key or column of the answer. Of a list of answers the first one is taken.
    text_column: the key or column of the text of images without a question.
    image_size: pixels of a side of the prepared images. A tower may be smaller, not larger.
    resize: `stretch` makes every image square, `pad` keeps its proportions, on white.
    validation_fraction: the share of images that is held out, with all their questions.
    """

    source: str | Annotated[tuple[str, ...], Field(min_length=1)] = EASY_VQA
    image_column: Annotated[str, Field(min_length=1)] = "image"
    question_column: Annotated[str, Field(min_length=1)] = "question"
    answer_column: Annotated[str, Field(min_length=1)] = "answer"
    text_column: Annotated[str, Field(min_length=1)] = "text"
    image_size: Annotated[int, Field(ge=1, le=LARGEST)] = 64
    resize: Resize = "stretch"
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,) if isinstance(self.source, str) else self.source

    def absolute(self) -> Self:
        """The same settings with absolute paths, which mean the same in every working directory."""
        fixed = tuple(entry if entry == EASY_VQA else str(located(entry)) for entry in self.sources)
        return self.model_copy(update={"source": fixed[0] if isinstance(self.source, str) else fixed})
