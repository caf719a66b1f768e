"""A model of Frontrunner as a class of `transformers`: cache, `generate`, and rows of unequal length."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from operators.layers.recurrence import KeepsFloat32
from operators.layers.residual import ResidualLayer
from operators.model import HybridLM, ModelState
from search.runs.remote_code.configuration_frontrunner import FrontrunnerConfig
from search.runs.remote_code.parts import architecture_from

_ROOM = 256  # tokens that a new cache has room for beyond its prompt; a full one is doubled


class FrontrunnerCache:
    """What decoding remembers, with a position for each row: padding is never read.

    seen: columns of `input_ids` read so far, padding included.
    """

    is_compileable = False

    def __init__(self, state: ModelState) -> None:
        self.state = state
        self.seen = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return -1

    def reorder_cache(self, beam_idx: Tensor) -> None:
        state = self.state
        for layer in state.layers:
            for name, tensor in layer.items():
                layer[name] = tensor[beam_idx]
        state.position = state.position[beam_idx]
        state.lengths = [state.lengths[row] for row in beam_idx.tolist()]


class FrontrunnerForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = FrontrunnerConfig
    base_model_prefix = "model"
    _is_stateful = True  # a recurrent state cannot be cut back

    def __init__(self, config: FrontrunnerConfig) -> None:
        super().__init__(config)
        # transformers chooses both by a context: the dtype by default, the device "meta" before it loads.
        device, dtype = torch.empty(0).device, torch.get_default_dtype()
        self.model = HybridLM(
            architecture_from(config.architecture), backend="reference", device=device, dtype=dtype
        )
        precise = set()
        for name, module in self.model.named_modules(prefix="model"):
            if isinstance(module, KeepsFloat32):
                precise |= {f"{name}.{each}" for each in module.precise}
            if hasattr(module, "_together"):
                module._together = None  # the weights that are loaded lie elsewhere
        self._keep_in_fp32_modules_strict = precise
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def _init_weights(self, module: Any) -> None:
        """The model has drawn its weights already."""

    def get_input_embeddings(self) -> Any:
        return self.model.embedding

    def get_output_embeddings(self) -> Any:
        return self.model.head

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: FrontrunnerCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **rest: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of every token that is not padding; those of padding are zeros.

        attention_mask: 0 for padding, for the tokens read now or for all since the cache began: [B, T].
        labels: ids to predict [B, T]; -100 for none.
        rest: `num_items_in_batch`, of a trainer, for the loss; others change nothing.
        """
        batch, columns = input_ids.shape
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask[:, -columns:]
        wanted = not self.training if use_cache is None else use_cache
        cache = past_key_values
        if cache is None and wanted:
            cache = FrontrunnerCache(self.model.allocate_state(batch, columns + _ROOM))
        hidden = self._hidden(input_ids, real.bool(), cache.state if cache is not None else None)
        if cache is not None:
            cache.seen += columns
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits, loss = self.model.logits(hidden[:, kept]), None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **rest)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)

    def _hidden(self, tokens: Tensor, real: Tensor, state: ModelState | None) -> Tensor:
        """The input of the head [B, T, W]. Rows of equal length are read together, without their padding."""
        model, meta = self.model, self.model.architecture.meta_tokens
        before = [0] * len(tokens) if state is None else state.lengths
        groups: dict[tuple[int, bool], list[int]] = {}
        counts = []
        for row, count in enumerate(real.sum(1).tolist()):
            begins = before[row] == 0
            counts.append(count + meta if begins and count else count)
            if count:
                groups.setdefault((count, begins), []).append(row)
        if state is not None:
            self._make_room(state, max(map(sum, zip(before, counts, strict=True))))
        if (
            state is not None
            and set(groups) == {(1, False)}
            and tokens.shape[1] == 1
            and real.all()
            and not torch.is_grad_enabled()
        ):
            return self._one_each(tokens[:, 0], state)[:, None]
        out = model.embedding.weight.new_zeros(*tokens.shape, model.architecture.width)
        for (count, begins), rows in groups.items():
            index = torch.tensor(rows, device=tokens.device)
            x = model.embedded(tokens[index][real[index]].view(len(rows), count))
            x = self._through(model._with_meta(x) if begins else x, state, index)
            chosen = torch.zeros_like(real)
            chosen[index] = real[index]
            out = out.masked_scatter(chosen[..., None], model.norm(x[:, -count:]))
        if state is not None:
            state.position += torch.tensor(counts, device=state.position.device)
            state.count(counts)
        return out

    def _one_each(self, tokens: Tensor, state: ModelState) -> Tensor:
        """One token in every row [B] -> the input of the head [B, W]."""
        x, change = self.model.embedded(tokens), None
        for layer, part in zip(self.model.layers, state.layers, strict=True):
            assert isinstance(layer, ResidualLayer)  # noqa: S101
            x, change = layer.step(x, change, part, state.position)
        state.position += 1
        state.count([1] * len(tokens))
        hidden: Tensor = self.model.add_norm(self.model.norm, x, change)[1]
        return hidden

    def _through(self, x: Tensor, state: ModelState | None, index: Tensor) -> Tensor:
        """x [G, T, W] through all layers, from and into the rows `index` of the state."""
        for number, layer in enumerate(self.model.layers):
            if state is None:
                x = layer(x)
                continue
            whole = state.layers[number]
            part = {name: tensor[index] for name, tensor in whole.items()}
            x = layer(x, part, state.position[index], state.length)
            for name, tensor in part.items():
                whole[name][index] = tensor.detach()
        return x

    def _make_room(self, state: ModelState, needed: int) -> None:
        """Gives the state room for `needed` tokens in a row."""
        if needed <= state.capacity:
            return
        larger = self.model.allocate_state(len(state.lengths), max(needed, 2 * state.capacity))
        for old, new in zip(state.layers, larger.layers, strict=True):
            for name, tensor in old.items():
                # A cache that grows has never wrapped: a window that is full does not grow.
                new[name][tuple(slice(size) for size in tensor.shape)] = tensor
        state.layers, state.capacity = larger.layers, larger.capacity
