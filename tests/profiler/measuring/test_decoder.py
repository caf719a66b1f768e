"""The decoder: what it says is what the model says, its limits, and a CUDA graph that changes nothing but the
time.
"""

from itertools import product

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from operators import Architecture, HybridLM
from operators.base.errors import DeviceError, StateError
from operators.sampling import most_likely
from profiler.measuring.decoder import Decoder, Prompt, Sampling

VOCABULARY = 97
# A head of its own: with a tied one a random model repeats itself, and comparing its texts would compare
# little.
MIXED = Architecture.from_shorthand(
    "d f m f a f g f", width=64, vocabulary=VOCABULARY, meta_tokens=3, tied_embeddings=False
)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def build(
    *, device: str = "cpu", dtype: torch.dtype = torch.float32, described: Architecture = MIXED
) -> HybridLM:
    torch.manual_seed(0)
    return HybridLM(described, device=device, dtype=dtype).eval()


def tokens_of(batch: int, length: int, device: str = "cpu") -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1)).to(device)


@torch.no_grad()
def test_greedy_tokens_are_the_most_likely_of_the_forward() -> None:
    model, prompt = build(), tokens_of(3, 7)
    decoder = Decoder(model, 3, 40)
    decoder.prefill(prompt)
    text = torch.cat([prompt, decoder.generate(10), decoder.generate(5), decoder.tokens[:, None]], 1)
    assert torch.equal(text[:, 7:], model(text[:, :-1]).argmax(-1)[:, 6:])
    assert decoder.state.lengths == [3 + 7 + 15] * 3


def test_rows_of_different_lengths_are_decoded_as_if_alone() -> None:
    model, prompt, lengths = build(), tokens_of(3, 9), [9, 2, 5]
    together = Decoder(model, 3, 20)
    together.prefill(prompt, lengths)
    found = together.generate(8)
    for row, length in enumerate(lengths):
        alone = Decoder(model, 1, 20)
        alone.prefill(prompt[row : row + 1, :length])
        assert torch.equal(alone.generate(8)[0], found[row])


def test_a_second_prefill_continues_and_reset_forgets() -> None:
    model, prompt = build(), tokens_of(2, 12)
    whole, pieces = Decoder(model, 2, 30), Decoder(model, 2, 30)
    expected = whole.prefill(prompt).clone()
    pieces.prefill(prompt[:, :5])
    assert torch.equal(pieces.prefill(prompt[:, 5:]), expected)
    text = whole.generate(6)
    addresses = [tensor.data_ptr() for layer in whole.state.layers for tensor in layer.values()]
    whole.reset()
    assert whole.state.length == 0
    whole.prefill(prompt)
    assert torch.equal(whole.generate(6), text)
    assert [tensor.data_ptr() for layer in whole.state.layers for tensor in layer.values()] == addresses


def test_tokens_can_be_given() -> None:
    model, text = build(), tokens_of(2, 6)
    decoder, state = Decoder(model, 2, 6), model.allocate_state(2, 6)
    with torch.no_grad():
        for t in range(6):
            decoder.tokens.copy_(text[:, t])
            assert decoder.step() is decoder.tokens
            assert torch.equal(decoder.tokens, model.step(text[:, t], state).argmax(-1))


def test_what_does_not_fit_is_refused_before_anything_is_done() -> None:
    decoder = Decoder(
        build(described=Architecture.from_shorthand("d a", width=64, vocabulary=VOCABULARY)), 2, 10
    )
    with pytest.raises(StateError, match="allocated for a batch of 2, got 3 rows"):
        decoder.prefill(tokens_of(3, 4))
    with pytest.raises(StateError, match="allocated for 10 tokens and holds 0: 11 more do not fit"):
        decoder.prefill(tokens_of(2, 11))
    decoder.prefill(tokens_of(2, 8))
    before = decoder.tokens.clone()
    with pytest.raises(StateError, match="allocated for 10 tokens and holds 8: 3 more do not fit"):
        decoder.generate(3)
    assert torch.equal(decoder.tokens, before)
    decoder.generate(2)
    with pytest.raises(StateError, match="allocated for 10 tokens and holds 10: 1 more do not fit"):
        decoder.step()


def test_a_graph_needs_a_gpu() -> None:
    assert not Decoder(build(), 1, 4).uses_graph
    with pytest.raises(DeviceError, match=r"^a CUDA graph needs a model on a GPU, this one is on cpu$"):
        Decoder(build(), 1, 4, graph=True)


@pytest.mark.parametrize("vocabulary", [1, 2, 97, 256, 1000, 128_256])
def test_most_likely_is_the_argmax(vocabulary: int) -> None:
    logits = (
        torch.randperm(3 * vocabulary, generator=torch.Generator().manual_seed(0)).view(3, vocabulary).float()
    )
    assert torch.equal(most_likely(logits), logits.argmax(-1))
    assert torch.equal(most_likely(logits.T.contiguous().T), logits.argmax(-1))


@pytest.mark.parametrize(
    ("temperature", "top_k"), [(1.0, None), (0.5, None), (1.0, 4), (1.0, 1), (2.0, 10**6)]
)
def test_draws_follow_the_distribution(temperature: float, top_k: int | None) -> None:
    # 20000 rows of the same logits are as many draws.
    logits = torch.randn(12, generator=torch.Generator().manual_seed(2))
    decoder = Decoder(build(described=Architecture.from_shorthand("f", width=16, vocabulary=12)), 20_000, 1)
    decoder.sampling = Sampling(temperature=temperature, top_k=top_k, seed=5)
    decoder.reset()
    decoder._choose(logits.expand(20_000, -1))
    scaled = logits / temperature
    if top_k is not None and top_k < 12:
        scaled = scaled.masked_fill(scaled < scaled.topk(top_k).values[-1], float("-inf"))
    found = torch.bincount(decoder.tokens, minlength=12) / 20_000
    assert (found - scaled.softmax(-1)).abs().max() < 0.015  # about four standard errors
    assert not found[scaled.isinf()].any()


def test_draws_depend_on_the_seed_alone() -> None:
    model, texts = build(), []
    for seed in (1, 1, 2):
        decoder = Decoder(model, 2, 30, sampling=Sampling(temperature=1.0, seed=seed))
        decoder.prefill(tokens_of(2, 5))
        texts.append(decoder.generate(20))
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])
    decoder.reset()
    decoder.prefill(tokens_of(2, 5))
    assert torch.equal(decoder.generate(20), texts[2])


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": 0}, {"nucleus": 0.9}]
)
def test_bad_sampling_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Sampling.model_validate(wrong)


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize(
    ("batch", "sampling"), product((1, 3), (Sampling(), Sampling(temperature=0.8, top_k=20, seed=3)))
)
def test_a_graph_says_what_eager_steps_say(batch: int, sampling: Sampling) -> None:
    model, prompt = build(device="cuda", dtype=torch.bfloat16), tokens_of(batch, 33, "cuda")
    texts = []
    for graph in (None, False):
        decoder = Decoder(model, batch, 600, graph=graph, sampling=sampling)
        assert decoder.uses_graph == (graph is None)
        decoder.prefill(prompt, [33 - row for row in range(batch)])
        texts.append(decoder.generate(512))
    assert torch.equal(*texts)
    assert texts[0].unique().numel() > VOCABULARY // 2


@pytest.mark.gpu
@gpu
def test_capture_leaves_an_empty_state_and_replays_go_on_after_a_reset() -> None:
    model, prompt = build(device="cuda", dtype=torch.bfloat16), tokens_of(2, 20, "cuda")
    decoder = Decoder(model, 2, 64)
    assert decoder.state.lengths == decoder.state.position.tolist() == [0, 0]
    assert not any(tensor.any() for layer in decoder.state.layers for tensor in layer.values())
    texts = []
    for _ in range(2):
        decoder.prefill(prompt[:, :11])
        decoder.generate(3)
        decoder.prefill(prompt[:, 11:])
        texts.append(decoder.generate(20))
        assert decoder.state.lengths == decoder.state.position.tolist() == [3 + 20 + 23] * 2
        decoder.reset()
    assert torch.equal(*texts)


@pytest.mark.gpu
@gpu
def test_a_replay_does_not_wait_for_the_host_and_is_refused_beyond_the_capacity() -> None:
    model = build(device="cuda", dtype=torch.bfloat16)
    decoder = Decoder(model, 1, 8)
    decoder.prefill(tokens_of(1, 6, "cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        decoder.generate(2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    text = decoder.tokens.clone()
    with pytest.raises(StateError, match="allocated for 11 tokens and holds 11: 1 more do not fit"):
        decoder.step()
    assert torch.equal(decoder.tokens, text)


def test_a_prompt_is_read_into_an_empty_state_each_time() -> None:
    model, tokens = build(), tokens_of(2, 9)
    decoder, other = Decoder(model, 2, 30), Decoder(model, 2, 30)
    prompt = Prompt(decoder, tokens)
    assert decoder.state.length == 0
    for _ in range(2):
        assert torch.equal(prompt.read(), other.prefill(tokens))
        with pytest.raises(StateError, match="into an empty state, this one holds 12 tokens"):
            prompt.read()
        assert torch.equal(decoder.generate(5), other.generate(5))
        decoder.reset(), other.reset()


def test_a_prompt_that_does_not_fit_is_refused() -> None:
    with pytest.raises(StateError, match="2 rows"):
        Prompt(Decoder(build(), 1, 30), tokens_of(2, 9)).read()


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("batch", [1, 3])
def test_a_replayed_prompt_leaves_what_an_eager_one_leaves(batch: int) -> None:
    model = build(device="cuda", dtype=torch.bfloat16)
    decoder, other = Decoder(model, batch, 600), Decoder(model, batch, 600, graph=False)
    pool = torch.cuda.graph_pool_handle()
    prompts = [Prompt(decoder, tokens_of(batch, length, "cuda"), pool=pool) for length in (63, 500)]
    for prompt in (*prompts, *prompts):  # in memory that they share
        decoder.reset(), other.reset()
        assert torch.equal(prompt.read(), other.prefill(prompt.tokens))
        assert decoder.state.lengths == decoder.state.position.tolist() == other.state.lengths
        for layer, expected in zip(decoder.state.layers, other.state.layers, strict=True):
            assert all(torch.equal(tensor, expected[name]) for name, tensor in layer.items())
        assert torch.equal(decoder.generate(50), other.generate(50))
