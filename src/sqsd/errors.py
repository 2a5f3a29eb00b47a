"""Every exception the library raises on purpose; catch `SqsdError` for all of them."""

import difflib
from collections.abc import Iterable


class SqsdError(Exception):
    """Base of all errors with a message meant for the user: what, where, what is allowed."""


class ConfigurationError(SqsdError):
    """The configuration is wrong; the message lists every problem found, one per line."""


class DataError(SqsdError):
    """A data file or row cannot be used; the message names the file and the row."""


class ShapeMismatch(SqsdError):
    """An adapter does not fit a model or another adapter; names the module and both shapes."""


class TrainingError(SqsdError):
    """A training run went wrong (for example a loss that is not finite)."""


class UselessModelError(SqsdError):
    """A state answers too few benign prompts correctly to be worth measuring."""


def not_known(name: str, kind: str, known: Iterable[str]) -> str:
    """What is wrong with a name that points nowhere: the names there are, and the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f". Did you mean '{near[0]}'?" if near else ""
    article = "an" if kind[0] in "aeiou" else "a"
    return f"'{name}' is not {article} {kind}; known: {', '.join(known)}{hint}"
