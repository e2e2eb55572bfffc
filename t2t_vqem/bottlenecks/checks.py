"""Checks of what a user may configure."""

import math

from t2t_vqem.errors import UserError, is_number


def require(holds: bool, parameter: str, value: object, wanted: str) -> None:
    """Raises UserError naming `parameter` unless `holds`."""
    if not holds:
        raise UserError(f"bottleneck parameter {parameter} = {value!r}: it must be {wanted}")


def require_whole(least: int, **values: object) -> None:
    """Raises UserError unless every value is a whole number of at least `least`."""
    for name, value in values.items():
        require(type(value) is int and value >= least, name, value, f"a whole number, at least {least}")


def require_positive(**values: object) -> None:
    """Raises UserError unless every value is a finite number above 0."""
    for name, value in values.items():
        require(is_number(value) and 0 < value < math.inf, name, value, "a number above 0")


def require_between(low: float, high: float, **values: object) -> None:
    """Raises UserError unless every value is a number with low <= value < high."""
    for name, value in values.items():
        wanted = f"{low:g} or more" if high == math.inf else f"in [{low:g}, {high:g})"
        require(is_number(value) and low <= value < high, name, value, wanted)


def require_power_of_two(num_codes: int) -> int:
    """Returns the bits of `num_codes`; raises UserError unless it is a power of two, at least 2."""
    power = type(num_codes) is int and num_codes >= 2 and num_codes & (num_codes - 1) == 0
    require(power, "num_codes", num_codes, "a power of two: each code is a number of bits")
    return num_codes.bit_length() - 1
