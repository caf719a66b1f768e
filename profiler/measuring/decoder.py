"""Decoding with all memory in place: on a GPU a whole step, or a whole prompt, is a CUDA graph."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from operators.architecture import Architecture
from operators.base.errors import DeviceError, StateError
from operators.base.graph import captured
from operators.base.value import Value
from operators.model import HybridLM
from operators.sampling import most_likely
from profiler.device.device import Device

# Before the capture, libraries choose kernels and allocate their workspaces. The first runs do that.
_WARMUP_RUNS = 3
# A prompt may take half a second.
_PROMPT_WARMUP_RUNS = 1


class Sampling(Value):
    """How the next token is chosen from the logits.

    temperature: divides the logits before a token is drawn; 0 takes the most likely token
    top_k: only the k most likely tokens can be drawn; None allows all
    seed: of the draws
    """

    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    top_k: Annotated[int, Field(ge=1)] | None = None
    seed: int = 0


class Decoder:
    """Decodes a batch of rows with `model`.

    It allocates the state once, for up to `max_length` tokens a row. Meta tokens come on top.

    model: the model that decodes
    batch: how many rows B are decoded at once
    max_length: how many tokens a row may have
    tokens: the last tokens that were chosen, which the next step reads ([B], int64). They stay at a fixed
        address: write to it to decode others.
    state: what the model remembers. It stays at a fixed address too.
    graph: whether `step` replays a CUDA graph of the embedding, the layers, the head and the choice of the
        next token; None is yes on a GPU. The graph is captured here on the empty state. It reads the model's
        weights where they lie: change them in place only.
    sampling: how the next token is chosen; None takes the most likely token

    Raises DeviceError for a graph without a GPU.
    Raises StateError, in every method that reads tokens, where they do not fit.
    """

    def __init__(
        self,
        model: HybridLM,
        batch: int,
        max_length: int,
        *,
        graph: bool | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        self.model, self.sampling = model, sampling or Sampling()
        self.device = model.embedding.weight.device
        on_gpu = self.device.type == "cuda"
        if graph and not on_gpu:
            raise DeviceError(f"a CUDA graph needs a model on a GPU, this one is on {self.device}")
        with torch.no_grad():
            self.state = model.allocate_state(batch, max_length)
            self.tokens = torch.zeros(batch, dtype=torch.int64, device=self.device)
            self._one_each = [1] * batch
            self._random = torch.Generator(self.device)
            self._graph = (
                self.capture(self.step_eagerly, prepare=lambda: self.state.seek(0))
                if (on_gpu if graph is None else graph)
                else None
            )
        self.reset()

    @property
    def uses_graph(self) -> bool:
        return self._graph is not None

    @torch.no_grad()
    def reset(self) -> None:
        """Forgets every token and starts the draws anew; all memory stays where it is."""
        self.state.reset()
        self.tokens.zero_()
        self._random.manual_seed(self.sampling.seed)

    @torch.no_grad()
    def fill(self, length: int, *, seed: int) -> None:
        """Sets the state as if `length` tokens had been read in every row.

        The state's values are random, because values do not change what a step costs.

        length: tokens a row
        seed: of the random values
        """
        random = torch.Generator(self.device).manual_seed(seed)
        for layer in self.state.layers:
            for tensor in layer.values():
                if tensor.is_floating_point():  # others are counters of kernels, which are zeros
                    tensor.normal_(generator=random)
        self.state.seek(length)
        self.tokens.random_(self.model.architecture.vocabulary, generator=random)

    @torch.no_grad()
    def prefill(self, tokens: Tensor, lengths: Sequence[int] | Tensor | None = None) -> Tensor:
        """Reads a prompt and returns the next token of each row, which is `self.tokens` ([B]).

        tokens: the prompt ([B, T])
        lengths: how many tokens of each row are read, see `HybridLM.prefill`
        """
        self._choose(self.model.prefill(tokens, self.state, lengths))
        return self.tokens

    def step(self) -> Tensor:
        """Reads `self.tokens` and returns the next ones in the same place ([B]).

        It returns before a GPU is done.
        """
        if self._graph is None:
            return self.step_eagerly()
        self.state.require_room(self._one_each)
        with torch.cuda.device(self.device):
            self._graph.replay()
        self.state.count(self._one_each)
        return self.tokens

    @torch.no_grad()
    def step_eagerly(self) -> Tensor:
        """Does the same as `step`, kernel by kernel."""
        if self.sampling.temperature == 0:
            self.model.step(self.tokens, self.state, chosen=self.tokens)
        else:
            self._choose(self.model.step(self.tokens, self.state))
        return self.tokens

    @torch.no_grad()
    def generate(self, count: int) -> Tensor:
        """The next `count` tokens of each row ([B, count]); the first are those that `self.tokens` holds.

        All of them are read, so that successive calls give one continuous text.
        """
        self.state.require_room([count] * len(self._one_each))
        out = self.tokens.new_empty(len(self._one_each), count)
        for index in range(count):
            out[:, index] = self.tokens
            self.step()
        return out

    def _choose(self, logits: Tensor) -> None:
        """Writes the tokens that `sampling` chooses from logits [B, vocabulary] to `self.tokens`."""
        temperature, top_k = self.sampling.temperature, self.sampling.top_k
        if temperature == 0:
            self.tokens.copy_(most_likely(logits))
            return
        candidates = None
        if top_k is not None and top_k < logits.shape[-1]:
            logits, candidates = logits.topk(top_k)
        # Gumbel's trick: argmax(logit - log(e)) with e ~ Exp(1) draws from the softmax. It needs no sum over
        # the vocabulary.
        noise = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=self._random)
        drawn = (logits.float() / temperature - noise.log()).argmax(-1, keepdim=True)
        self.tokens.copy_((drawn if candidates is None else candidates.gather(-1, drawn))[:, 0])

    def capture(
        self,
        run: Callable[[], Any],
        *,
        prepare: Callable[[], None],
        pool: Any = None,
        warmups: int = _WARMUP_RUNS,
    ) -> torch.cuda.CUDAGraph:
        """A CUDA graph of `run`, which works on this state and may draw random numbers.

        Reset the decoder afterwards.

        run: the work to capture. It is called a few times, each time after `prepare`.
        prepare: called before each call of `run`
        pool: memory for intermediate results, from `torch.cuda.graph_pool_handle`; None is memory of its own.
            Graphs that share a pool must never run at the same time.
        warmups: how often `run` is executed before it is captured
        """
        with torch.no_grad():
            return captured(
                run,
                device=self.device,
                warmups=warmups,
                prepare=prepare,
                pool=pool,
                generator=self._random,
            )


class Prompt:
    """A prompt that a decoder reads into its empty state again and again.

    On a GPU it replays a CUDA graph, so that a prompt costs only what the device needs. How fast the host
    launches kernels one by one is no property of an architecture, and changes every time.

    decoder: reads the prompt
    tokens: the prompt ([B, T])
    pool: see `Decoder.capture`

    Raises StateError where the prompt does not fit.
    """

    def __init__(self, decoder: Decoder, tokens: Tensor, *, pool: Any = None) -> None:
        self._decoder, self.tokens = decoder, tokens
        self._graph: torch.cuda.CUDAGraph | None = None
        if decoder.device.type == "cuda":
            self._graph = decoder.capture(
                self._launch, prepare=decoder.reset, pool=pool, warmups=_PROMPT_WARMUP_RUNS
            )
        decoder.reset()

    def read(self) -> Tensor:
        """Reads the prompt and returns the next token of each row, which is `decoder.tokens`.

        Raises StateError for a state that is not empty.
        """
        state = self._decoder.state
        if state.length:
            raise StateError(f"a prompt is read into an empty state, this one holds {state.length} tokens")
        if self._graph is None:
            self._launch()
        else:
            with torch.cuda.device(self._decoder.device):
                self._graph.replay()
            state.count(
                [self.tokens.shape[1] + self._decoder.model.architecture.meta_tokens] * self.tokens.shape[0]
            )
        return self._decoder.tokens

    def _launch(self) -> None:
        self._decoder.prefill(self.tokens)


def random_model(
    architecture: Architecture, device: Device, *, backend: str | Mapping[str, str], seed: int
) -> HybridLM:
    """A model on `device` in its dtype, with random weights from `seed`.

    Torch's random state is the same afterwards as before.

    Raises BackendError where the backend cannot be used.
    """
    with torch.random.fork_rng(devices=[device.torch_device] if device.torch_device.type == "cuda" else []):
        torch.manual_seed(seed)
        return HybridLM(architecture, backend=backend, device=device.torch_device, dtype=device.dtype).eval()
