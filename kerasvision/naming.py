"""Help with mistyped names."""

from collections.abc import Iterable
from difflib import get_close_matches

_LISTED = 10


def close_matches(name: str, known: Iterable[str], *, what: str = "known") -> str:
    """Return a part of a message that lists close matches of a mistyped name, or some of the known ones.

    Args:
        name: What the user wrote.
        known: What there is.
        what: Introduces the list, where nothing is close.
    """
    known = list(known)
    matches = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    matches += [entry for entry in known if entry.startswith(name.lower()) and entry not in matches][:5]
    if matches:
        return "did you mean " + " or ".join(repr(match) for match in matches) + "?"
    listed = ", ".join(repr(entry) for entry in known[:_LISTED]) or "none"
    return f"{what}: {listed}{', …' if len(known) > _LISTED else ''}"
