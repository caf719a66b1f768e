"""Options that take several whole numbers, in each way that people write them."""

import re
from collections.abc import Sequence

from operators.errors import ConfigError

LISTS = ("--batch", "--context")


def joined(arguments: Sequence[str]) -> list[str]:
    """`--batch 1 8 64` as `--batch 1,8,64`, since an option of the parser takes one value; all else stays as it is."""
    out: list[str] = []
    option = ""
    for argument in arguments:
        number = re.fullmatch(r"[\d,]+", argument) is not None
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
    for part in parts:
        if not part.strip().isdecimal():
            raise ConfigError(f"{option}: expected whole numbers, as in {option} 1,8,64, got {part!r}")
    return tuple(int(part) for part in parts)
