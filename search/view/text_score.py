"""How well a model predicts a text, in the terminal."""

from rich.console import Console

from search.runs.evaluating import TextScore


def print_text_score(console: Console, score: TextScore) -> None:
    """Prints the score, and over which windows it is."""
    overlap = score.window - score.stride
    first = (
        f"the first token is predicted from {score.first}"
        if score.first is not None
        else "the first token is not scored"
    )
    again = f", of which {overlap:,} were read before and are context alone" if overlap else ""
    behind = f", each with {score.behind} behind it, which is scored" if score.behind is not None else ""
    before = f", {' '.join(score.before)} before it" if score.before else ""
    for line in (
        f"{score.model}: {score.nats_per_token:.4f} nats per token, perplexity {score.perplexity:.2f}, "
        f"{score.bits_per_byte:.4f} bits per byte",
        f"{score.scored_tokens:,} tokens scored, of {score.bytes:,} bytes; "
        f"documents: {score.documents:,}{behind}{before}",
        f"windows: {score.windows:,} of {score.window:,} tokens{again}; {first}; "
        f"{score.dtype} on {score.device}",
    ):
        console.print(line, soft_wrap=True)
    if score.context is not None and score.window > score.context:
        console.print(f"the windows are longer than the {score.context:,} tokens that the model was made for")
