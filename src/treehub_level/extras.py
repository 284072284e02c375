"""Optional dependencies: the command that installs an extra, and the message for a missing one."""

from __future__ import annotations


def install_command(extra: str) -> str:
    """Return the command that installs an extra of this package, to be run in a checkout.

    The package is not published yet. Once it is, this becomes ``pip install 'treehub-level[…]'``.
    """
    return f"pip install '.[{extra}]'"


def missing(feature: str, module: str | None, extra: str) -> str:
    """Return the error message for a feature whose library is not installed.

    Args:
        feature: The name of the feature, such as ``treehub_level.http.RemoteServer``.
        module: The module that could not be imported.
        extra: The extra that installs it.
    """
    return (
        f"{feature} needs {module}, which is not installed: run {install_command(extra)} in a checkout of treehub-level"
    )
