"""Every exception the library raises on purpose; catch `SqsdError` for all of them."""

import difflib
import errno
import os
from collections.abc import Iterable

# What to do about a result that is not as it should be.
AGAIN = "delete it and run again"
# What to do where a file cannot be written; libraries of other languages give the text alone.
REMEDIES = {
    errno.ENOSPC: "free room on the disk of results/ and run again",
    errno.EDQUOT: "free room in your quota on the disk of results/ and run again",
    errno.ENOTDIR: "move away the file that is in the place of a folder, and run again",
    errno.EEXIST: "move away the file that is in the place of a folder, and run again",
    errno.EISDIR: "move away the folder that is in the place of a file, and run again",
    errno.EROFS: "run where results/ can be written",
    errno.EACCES: "make the file or folder readable and writable for you, and run again",
}


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


class TrustError(SqsdError):
    """A model, a direction or a pilot does not do what scores rest on."""


class UnknownSizeError(SqsdError):
    """Nothing is known of the size of a model before it is fetched, or of a GPU."""


class UselessModelError(SqsdError):
    """A state answers too few benign prompts correctly to be worth measuring."""


def message_of_disk(error: OSError, what: str) -> str:
    """One line about a file that cannot be written: which, why, what to do."""
    remedy = remedy_for(error) or "make it writable and run again"
    return f"{type(error).__name__}: {what} ({error}); {remedy}"


def remedy_for(error: BaseException) -> str | None:
    """What to do about an error of a disk, whichever library has met it; None for any other."""
    causes = [error, *filter(None, (error.__cause__, error.__context__))]
    for cause in causes:
        for number, remedy in REMEDIES.items():
            if getattr(cause, "errno", None) == number or os.strerror(number) in str(cause):
                return remedy
    return None


def not_known(name: str, kind: str, known: Iterable[str]) -> str:
    """What is wrong with a name that points nowhere: the names there are, and the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f". Did you mean '{near[0]}'?" if near else ""
    article = "an" if kind[0] in "aeiou" else "a"
    return f"'{name}' is not {article} {kind}; known: {', '.join(known)}{hint}"
