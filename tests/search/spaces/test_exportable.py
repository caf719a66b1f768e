"""`space.exportable_to`: every proposal loads in the engines, and nothing that loads is lost."""

from collections.abc import Mapping
from io import StringIO
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

from operators import Architecture
from operators.base.errors import ArchitectureError, ConfigError, one_line
from operators.published.engines import ENGINES, LISTED, Engine, fits, loads, where_it_loads
from operators.published.folding import plain
from operators.published.gguf_export.homes import outline
from operators.published.held import hold
from search.config.run import RunConfig
from search.config.searcher import EvolutionSettings
from search.config.space import SpaceSettings
from search.gates.table import digest_of
from search.runs.progress import DesignsLeftOut
from search.searchers.registry import searcher
from search.spaces.exportable import of_one_model, one_layer_each, together
from search.spaces.free import ArchitectureSpace
from search.spaces.seeds import design_in
from search.spaces.staged import make_space
from search.view.progress import print_event
from tests.helpers.published_models import FEEDFORWARD, MAMBA2, architecture, attention

SPACES: Mapping[str, dict[str, Any]] = {
    "everything": {"max_depth": 10},
    "one home": {"operators": ["mamba2", "attention", "swiglu"]},
    "two homes": {"operators": ["mamba2", "gated_deltanet", "attention", "swiglu", "relu2"]},
    "stages": {"operators": ["mamba2", "attention", "swiglu"], "stages": {}},
    "further": {
        "operators": ["gated_deltanet", "attention", "swiglu", "gla"],
        "norms": [["rmsnorm", "before"], ["layernorm", "before"], ["rmsnorm", "after"]],
        "meta_tokens": [0, 16],
        "normalized_head": True,
    },
}
LISTS: tuple[tuple[Engine, ...], ...] = (("transformers",), ("llama.cpp",), ENGINES)


def space_of(name: str, engines: tuple[Engine, ...] | None) -> ArchitectureSpace:
    return make_space(SpaceSettings(**{"widths": [96, 128], **SPACES[name]}, exportable_to=engines), 512)


def in_full(member: Architecture, engine: Engine) -> bool:
    """The answer of what `export` itself asks, of the whole architecture."""
    try:
        if engine == "llama.cpp":
            return bool(outline(member).family)
        held = hold(plain(member))
    except ArchitectureError:
        return False
    return engine not in LISTED or held.family in LISTED[engine][1]


def lineage(space: ArchitectureSpace, seed: int) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    members = [space.sample(rng) for _ in range(3)]
    for _ in range(5):
        mutated = space.mutate(members[-1], rng)
        assert mutated is not None
        crossed = space.crossover(mutated[0], members[0], rng)
        members += [mutated[0], *([crossed] if crossed else [])]
    return members


@pytest.mark.parametrize("engines", LISTS, ids="+".join)
@pytest.mark.parametrize("name", SPACES)
def test_all_that_is_drawn_or_bred_loads_and_is_the_same_for_a_seed(
    name: str, engines: tuple[Engine, ...]
) -> None:
    space = space_of(name, engines)
    members = lineage(space, 1)
    for member in [*members, *space.seeds()]:
        assert space.contains(member) is None
        assert all(in_full(member, engine) for engine in engines), member.shorthand
    assert lineage(space_of(name, engines), 1) == members
    assert len({space.key(member) for member in members}) > 4


@pytest.mark.parametrize("name", SPACES)
def test_the_quick_answer_is_the_exporters_and_what_loads_stays_a_member(name: str) -> None:
    free, rng = space_of(name, None), np.random.default_rng(2)
    narrow = {engines: space_of(name, engines) for engines in LISTS}
    for number in range(16):
        drawn = free.sample(rng)
        alike = drawn.model_copy(update={"layers": one_layer_each(drawn.layers)})
        member = alike if number % 2 else drawn
        for engine in ENGINES:
            assert fits(member, (engine,)) is in_full(member, engine) is not loads(member, engine).reason
        if free.contains(member) is None:
            for engines, space in narrow.items():
                inside = all(in_full(member, engine) for engine in engines)
                assert (space.contains(member) is None) is inside, member.shorthand


@pytest.mark.parametrize("name", ["guided", "evolution", "aging", "random", "tpe"])
def test_every_searcher_stays_inside(name: str) -> None:
    space = space_of("two homes", ("llama.cpp",))
    search = searcher(name, space, EvolutionSettings(population=6), seed=3)
    for number in range(14):
        proposal = search.ask()
        assert in_full(proposal.candidate, "llama.cpp")
        search.tell(proposal.number, (float(proposal.candidate.depth), float(-number)))


def test_operators_that_no_model_has_together_are_told_apart() -> None:
    sets = together(space_of("two homes", ("transformers",)).choices, ("transformers",))
    assert sets == [
        frozenset({"attention", "gated_deltanet", "swiglu"}),
        frozenset({"attention", "mamba2", "relu2"}),
        frozenset({"attention", "mamba2", "swiglu"}),
    ]


def test_what_one_model_cannot_have_is_replaced_by_the_same_kind() -> None:
    sets = [frozenset({"attention", "mamba2", "relu2"}), frozenset({"attention", "mamba2", "swiglu"})]
    assert of_one_model(["mamba2", "swiglu", "relu2", "swiglu"], sets) == ["mamba2", *["swiglu"] * 3]
    assert of_one_model(["mamba2", "relu2", "gla"], sets) == ["mamba2", "relu2", "attention"]


def test_a_changed_layer_goes_into_all_layers_of_its_operator() -> None:
    old, new = architecture([attention(head_dim=12), FEEDFORWARD]).layers, attention(head_dim=16)
    changed = architecture([new, FEEDFORWARD]).layers[0]
    assert one_layer_each((*old, changed), old) == (changed, old[1], changed)
    assert one_layer_each((*old, changed, old[0])) == (old[0], old[1], old[0], old[0])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["vllmm"], "exportable_to.0: expected 'transformers', 'llama.cpp', 'vllm' or 'sglang'"),
        ([], "exportable_to: expected at least 1"),
        ("transformers", "exportable_to: expected a list"),
        ([1], "exportable_to.0: expected 'transformers'"),
        (["vllm", "vllm"], "exportable_to: expected each once, got vllm twice"),
    ],
)
def test_other_values_are_refused_in_one_line(asked: object, expected: str) -> None:
    with pytest.raises(ValidationError) as error:
        SpaceSettings.model_validate({"exportable_to": asked})
    line = one_line(error.value)
    assert "\n" not in line
    assert expected in line


def test_a_space_of_which_nothing_loads_is_refused_with_the_reason() -> None:
    settings = SpaceSettings(operators=["gla", "swiglu"], exportable_to=("llama.cpp",))
    with pytest.raises(ConfigError) as error:
        make_space(settings, 512).sample(np.random.default_rng(0))
    assert str(error.value) == (
        "space.exportable_to: no architecture of the space loads in llama.cpp, as for gla "
        "alone: llama.cpp: layers.0: expected an operator that a GGUF model has, got gla"
    )


def test_a_run_keeps_its_constraint_and_older_runs_have_none() -> None:
    asked = {"space": {"exportable_to": ["llama.cpp", "vllm"]}, "objectives": ["loss"]}
    written = RunConfig.model_validate(asked).model_dump(mode="json")
    assert RunConfig.model_validate(written).space.exportable_to == ("llama.cpp", "vllm")
    del written["space"]["exportable_to"]
    assert RunConfig.model_validate(written).space.exportable_to is None


class LaterSettings(SpaceSettings):
    """A space with a key that no table knew when it was made."""

    even: bool = False


@pytest.mark.parametrize("settings", [SpaceSettings, LaterSettings])
def test_a_latency_table_made_before_there_was_a_key_is_still_of_its_space(
    settings: type[SpaceSettings],
) -> None:
    assert digest_of(settings(operators=["attention"], widths=[96])) == "4254dc26413c"


@pytest.mark.parametrize("key", [{"even": True}, {"exportable_to": ["llama.cpp"]}])
def test_a_key_that_changes_the_space_changes_its_digest(key: dict[str, Any]) -> None:
    assert digest_of(LaterSettings(operators=["attention"], widths=[96], **key)) != "4254dc26413c"


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((attention(head_dim=12), FEEDFORWARD), ("LlamaForCausalLM", "llama", True, True)),
        ((MAMBA2,), ("Mamba2ForCausalLM", "mamba2", True, False)),
        ((MAMBA2, FEEDFORWARD), ("GraniteMoeHybridForCausalLM", "granitehybrid", True, True)),
    ],
)
def test_each_engine_tells_what_it_loads_it_as(
    layers: tuple[dict[str, Any], ...], expected: tuple[str, str, bool, bool]
) -> None:
    answers = [loads(architecture(layers), engine) for engine in ENGINES]
    listed = [not answer.reason for answer in answers[2:]]
    assert (answers[0].name, answers[1].name, *listed) == expected


def test_a_reason_names_the_layer_of_the_whole_sequence() -> None:
    gla = {"operator": "gla", "shape": {"heads": 2, "key_dim": 8, "value_dim": 16}}
    member = architecture(
        [attention(head_dim=12), FEEDFORWARD, attention(head_dim=12), FEEDFORWARD, gla, FEEDFORWARD]
    )
    assert loads(member, "transformers").reason.startswith("layer 4: no class of transformers has gla")
    assert loads(member, "llama.cpp").reason.startswith("layers.4: ")
    assert where_it_loads(member) == ("none: layer 4: no class of transformers has gla")
    both = architecture([attention(head_dim=12), FEEDFORWARD])
    assert where_it_loads(both) == "transformers (LlamaForCausalLM), llama.cpp (llama), vllm, sglang"
    normed = architecture([attention(head_dim=12, qk_norm="full"), FEEDFORWARD])
    assert where_it_loads(normed) == (
        "none: llama: layer 0 (attention): qk_norm: the model has full, the class none"
    )


@pytest.mark.parametrize(
    ("operators", "engines", "reasons"),
    [
        (["mamba2", "attention", "swiglu"], ("transformers", "llama.cpp"), {}),
        (["deltanet", "mamba2", "attention", "swiglu"], None, {}),
        (
            ["deltanet", "mamba2", "attention", "swiglu"],
            ("llama.cpp",),
            dict.fromkeys(
                ("nemotron-flash-1b", "nemotron-flash-3b"),
                "llama.cpp: layers.0: expected an operator that a GGUF model has, got deltanet",
            ),
        ),
    ],
)
def test_published_designs_that_do_not_fit_are_left_out_with_a_line(
    operators: list[str], engines: tuple[Engine, ...] | None, reasons: dict[str, str]
) -> None:
    space = make_space(SpaceSettings(operators=operators, exportable_to=engines), 512)
    assert space.left_out() == reasons
    begun = {design_in(seed) for seed in space.seeds()}
    assert begun.isdisjoint(reasons)
    assert {*begun, *reasons} >= {"llama-3.2-1b", "qwen3-0.6b", "mamba2-1.3b", *reasons}
    written = StringIO()
    print_event(Console(file=written, width=40), DesignsLeftOut(reasons))
    if reasons:
        (line,) = written.getvalue().splitlines()
        assert line.startswith(
            "space.exportable_to: the search does not begin with these published designs: "
        )
        assert all(f"{name} ({reason})" in line for name, reason in reasons.items())
