"""Failures that a user can mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A failure the user can mend; its text is one clear sentence: what was wrong, where, what to do.

    The commands print it without a traceback and exit with status 2.
    """


def require(holds: object, name: str, value: object, wanted: str) -> None:
    """Raises UserError that the setting `name` has a `value` which is not what is `wanted`, unless `holds`."""
    if not holds:
        raise UserError(f"{name} is {value!r}; it must be {wanted}")


def is_number(value: object) -> bool:
    """Returns whether a setting is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def near(name: str, known: Iterable[str]) -> str:
    """Returns a parenthesis that names what the user may have meant, to end a sentence with."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return " (did you mean " + " or ".join(close) + "?)"
    return " (known: " + ", ".join(known) + ")" if known else ""
