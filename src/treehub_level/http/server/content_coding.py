"""The content codings that a client accepts, from its ``Accept-Encoding`` header."""

from __future__ import annotations


def accepted_codings(header: str) -> set[str]:
    """Return the names of the content codings in a header, without those of weight 0.

    A member that is malformed is left out. Splitting takes linear time; a regular expression for
    the whole list could take quadratic time for long white space.

    Args:
        header: The value of ``Accept-Encoding`` (RFC 9110, section 12.5.3).
    """
    accepted = set()
    for member in header.lower().split(","):
        name, *parameters = (part.strip(" \t") for part in member.split(";"))
        if name.isascii() and name.isalpha() and _is_wanted(parameters):
            accepted.add(name)
    return accepted


def _is_wanted(parameters: list[str]) -> bool:
    """Return True if the parameters of a member have no weight, or a positive one."""
    if not parameters:
        return True
    name, _, weight = parameters[0].partition("=")
    digits = weight.strip(" \t")
    is_weight = len(parameters) == 1 and name.strip(" \t") == "q" and bool(digits) and not digits.strip("0123456789.")
    return is_weight and bool(digits.strip("0."))
