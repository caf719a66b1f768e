"""Options that take several values, in each way that people write them.

Every such option takes its values separated by commas, repeated (`--batch 1 --batch 8`), or both.
Whole numbers and engines may also follow one another: `--batch 1 8`.
"""

import re
from collections.abc import Sequence

from operators.base import plain_yaml
from operators.base.errors import ConfigError
from operators.base.value import whole
from profiler.device.names import ENGINES

NUMBER = re.compile(r"\d[\d,_e+]*")
# What may follow a value of the option as a further value.
LISTS = {
    "--batch": NUMBER,
    "--context": NUMBER,
    "--against": re.compile(r"(?!\d+$)[^-].*"),  # a number is a candidate's id
    "--engine": re.compile("|".join(map(re.escape, ENGINES))),
}


def joined(arguments: Sequence[str]) -> list[str]:
    """`--batch 1 8 64` as `--batch 1,8,64`, as an option of the parser takes one value; the rest stays."""
    out: list[str] = []
    listed: re.Pattern[str] | None = None
    has_value = False
    for argument in arguments:
        fits = listed is not None and listed.fullmatch(argument) is not None
        if fits and has_value:
            out[-1] += f",{argument}"
            continue
        out.append(argument)
        if fits:
            has_value = True
        else:
            name, given, _ = argument.partition("=")
            listed, has_value = LISTS.get(name), bool(given)
    return out


def several(values: Sequence[str]) -> tuple[str, ...]:
    """The texts in `a,b` and `c` of an option that may be repeated."""
    return tuple(part.strip() for value in values for part in value.split(","))


def whole_numbers(option: str, values: Sequence[str]) -> tuple[int, ...]:
    """The numbers in `1,8` and `64` of an option that may be repeated.

    Raises ConfigError for a number below 1.
    """
    numbers = []
    for part in several(values):
        number = whole(plain_yaml.number(part))
        if number is None or number < 1:
            raise ConfigError(
                f"{option}: expected whole numbers of at least 1, as in {option} 1,8,64, got {part!r}"
            )
        numbers.append(number)
    return tuple(numbers)
