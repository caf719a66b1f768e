"""The part of a space that engines load: `space.exportable_to`.

A class of an engine has one shape for all layers of an operator, so that random changes of single layers
seldom stay inside. Hence a child takes the changed layer for all layers of its operator.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product

from operators import registry
from operators.architecture import Architecture, Layer
from operators.base.errors import ConfigError
from operators.published.engines import LISTED, Engine, fits, loads, operator_sets
from operators.published.held import NO_CLASS
from search.config.choices import Choices, Layers, normalized

Build = Callable[[int, Sequence[Layer], int], Architecture]


def why_not(architecture: Architecture, engines: Sequence[Engine]) -> str | None:
    """The reason why the first engine that does not load it does not; None where all do."""
    if fits(architecture, engines):
        return None
    answers = ((engine, loads(architecture, engine).reason) for engine in engines)
    return next(f"{engine}: {reason}" for engine, reason in answers if reason)


def first_reason(architecture: Architecture, engines: Sequence[Engine]) -> str:
    """What is in the way in the engine's first class, in few words; `why_not` has that of all its classes.

    A member that the engines load may still not be one of theirs, as all genes of its space are narrowed.
    """
    whole = why_not(architecture, engines) or "no such layers are left in the space"
    return whole.replace(NO_CLASS, "").partition(";")[0]


def one_layer_each(layers: Layers, before: Layers = ()) -> Layers:
    """The layers with one shape and normalization for each operator.

    It is that of a layer that is not in `before`, else that of most layers.

    before: the layers of the parent, so that what is new goes into all layers.
    """
    known, chosen = set(before), dict[str, Layer]()
    for name in dict.fromkeys(layer.operator for layer in layers):
        own = [layer for layer in layers if layer.operator == name]
        new = [layer for layer in own if layer not in known] if known else []
        chosen[name] = Counter(new or own).most_common(1)[0][0]
    return tuple([chosen[layer.operator] for layer in layers])


def together(choices: Choices, engines: Sequence[Engine]) -> list[frozenset[str]]:
    """The largest sets of the space's operators that one model of all the engines may have, in a fixed order.

    Each has a mixer.
    """
    sets = [
        reduce(frozenset.intersection, each, frozenset(choices.operators))
        for each in product(*map(operator_sets, engines))
    ]
    able = {each for each in sets if any(registry.get(name).kind == "mixer" for name in each)}
    return sorted((each for each in able if not any(each < other for other in able)), key=sorted)


def of_one_model(names: Sequence[str], sets: Sequence[frozenset[str]]) -> list[str]:
    """The operators of a sequence, those outside of the set that has most of them replaced by its own.

    A replacement is of the same kind where the set has one.
    """
    best = max(sets, key=lambda each: sum(name in each for name in names))
    stand_ins = {
        name: next((own for own in sorted(best) if registry.get(own).kind == registry.get(name).kind), None)
        for name in set(names) - best
    }
    return [stand_ins.get(name, name) or min(best) for name in names]


def narrowed(choices: Choices, engines: Sequence[Engine], build: Build) -> Choices:
    """The choices without layers, normalizations, meta tokens and widths that no such model can have.

    build: makes an architecture of a width, layers and a number of meta tokens.

    Raises ConfigError where nothing is left.
    """

    # One layer may have another class than the model that it is a part of, which a server need not list.
    exact = tuple(dict.fromkeys("transformers" if each in LISTED else each for each in engines))

    def able(width: int, layers: Sequence[Layer], counts: Sequence[int] = choices.meta_tokens) -> bool:
        return any(
            fits(build(width, [normalized(layer, norm) for layer in layers], count), exact)
            for norm in choices.norms
            for count in counts
        )

    sets = together(choices, engines)
    kept = {key: dict[tuple[object, ...], Layer]() for key in choices.layers}
    # Mixers first: a feed-forward network may only fit behind one of them.
    names = sorted(choices.operators, key=lambda name: registry.get(name).kind != "mixer")
    for name, width in product(names, choices.widths):
        if not any(name in each for each in sets):
            continue
        beside = [
            next(iter(kept[mixer, width].values()))
            for mixer in names
            if registry.get(mixer).kind == "mixer"
            and registry.get(name).kind != "mixer"
            and kept[mixer, width]
        ]
        kept[name, width] = {
            values: layer
            for values, layer in choices.layers[name, width].items()
            if able(width, [layer]) or any(able(width, [mixer, layer]) for mixer in beside)
        }
    mixers = {key: table for key, table in kept.items() if table and registry.get(key[0]).kind == "mixer"}
    if not mixers:
        raise ConfigError(_nothing(choices, engines, build))
    widths = tuple(width for width in choices.widths if any(key[1] == width for key in mixers))
    operators = tuple(name for name in choices.operators if any(kept[name, width] for width in widths))
    counts = tuple(
        count
        for count in choices.meta_tokens
        if any(able(key[1], [layer], (count,)) for key, table in mixers.items() for layer in table.values())
    )
    return replace(
        choices,
        operators=operators,
        widths=widths,
        meta_tokens=counts,
        genes={name: choices.genes[name] for name in operators},
        layers={(name, width): kept[name, width] for name in operators for width in widths},
    )


def _nothing(choices: Choices, engines: Sequence[Engine], build: Build) -> str:
    """The message for a space of which the engines load nothing, with the reason of its first mixer."""
    name, width = next(
        key for key, table in choices.layers.items() if table and registry.get(key[0]).kind == "mixer"
    )
    layer = normalized(choices.at(name, width)[0], choices.norms[0])
    reason = why_not(build(width, [layer], choices.meta_tokens[0]), engines)
    listed = " and ".join(engines)
    return (
        f"space.exportable_to: no architecture of the space loads in {listed}, as for {name} alone: {reason}"
    )
