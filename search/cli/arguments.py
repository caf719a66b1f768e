"""Options that take several whole numbers, in each way that people write them."""

import re
from collections.abc import Sequence

from operators.base import plain_yaml
from operators.base.errors import ConfigError
from operators.base.value import whole

LISTS = ("--batch", "--context")


def joined(arguments: Sequence[str]) -> list[str]:
    """`--batch 1 8 64` as `--batch 1,8,64`, since an option of the parser takes one value; all else stays as it is."""
    out: list[str] = []
    option = ""
    for argument in arguments:
        number = re.fullmatch(r"\d[\d,_e+]*", argument) is not None
        if option and number and out[-1] != option:
            out[-1] += f",{argument}"
        else:
            out.append(argument)
        if not (option and number):
            option = argument if argument in LISTS else ""
    return out


def whole_numbers(option: str, values: Sequence[str]) -> tuple[int, ...]:
    """The numbers in `1,8` and `64` of an option that may be repeated. Raises ConfigError."""
    parts = [part for value in values for part in value.split(",")]
    numbers = [whole(plain_yaml.number(part.strip())) for part in parts]
    for part, number in zip(parts, numbers, strict=True):
        if number is None or number < 0:
            raise ConfigError(f"{option}: expected whole numbers, as in {option} 1,8,64, got {part!r}")
    return tuple(number for number in numbers if number is not None)
