"""Which examples of a split stand for all of it."""


def evenly(count: int, most: int | None) -> list[int]:
    """Returns at most `most` indices below `count`, evenly spaced: a corpus is ordered by document."""
    if not most or most >= count:
        return list(range(count))
    return [i * count // most for i in range(most)]
