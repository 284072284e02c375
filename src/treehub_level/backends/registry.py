"""From what ``Level(backend=...)`` was given to a `Backend`: the names, and who stands behind them.

A name is looked for among those that the program registered, then those that come with this package, then the entry
points of the group ``treehub_level.backends``. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from ..errors import BackendNotFoundError
from .base import Backend

#: Makes a backend, from its name and the options that it takes as keywords.
Factory = Callable[..., Backend]

GROUP: Final = "treehub_level.backends"

#: Ours, as (module, class), the best first: which of them can be imported depends on what is installed.
_BUILT_IN: Final = {
    "leveldb": [(".leveldb.native", "LevelDBBackend"), (".leveldb.plyvel", "PlyvelBackend")],
    "memory": [(".memory", "MemoryBackend")],
    "plyvel": [(".leveldb.plyvel", "PlyvelBackend")],
    "postgres": [(".postgres", "PostgresBackend")],
    "sqlite": [(".sqlite", "SQLiteBackend")],
}
#: The extras that install a library for those of ours that need one.
_EXTRAS: Final = {"leveldb": "plyvel", "plyvel": "plyvel", "postgres": "postgres"}

_registered: Final[dict[str, Factory]] = {}


def register(name: str, factory: Factory) -> None:
    """Make ``Level(..., backend=name)`` use ``factory``, in this process. It may take over a name that is in use.

    Args:
        name: The name to register.
        factory: A `Backend` subclass, or a callable that takes the name of the level, and options as keywords, and
            returns a `Backend`.

    Raises:
        TypeError: ``name`` is not a str, or ``factory`` cannot be called.
    """
    if not isinstance(name, str):
        raise TypeError(f"a backend's name must be a str, not {name!r:.80}")
    if not callable(factory):
        raise TypeError(f"a backend's factory must be a Backend subclass or a callable, not {factory!r:.80}")
    _registered[name] = factory


def create(backend: str | Factory, name: str, options: Mapping[str, object]) -> Backend:
    """Make the backend of one level, not yet open.

    Args:
        backend: A name, a `Backend` subclass, or a callable that takes ``name`` and returns a `Backend`.
        name: The path, label or URL that the level was given.
        options: What the level was given beside its own options.

    Raises:
        BackendNotFoundError: Nothing of that name is installed, or it cannot be imported.
        TypeError: ``backend`` is none of the three, or what it returned is no `Backend`, or an option is unknown to it.
    """
    if isinstance(backend, str):
        label, factory = repr(backend), _find(backend)
    elif callable(backend):
        label, factory = getattr(backend, "__name__", repr(backend)), backend
    else:
        hint = ": pass lambda name: instance" if isinstance(backend, Backend) else ""
        raise TypeError(
            f"backend must be a name, a Backend subclass or a callable that returns one, not {backend!r:.80}{hint}"
        )
    _check_options(label, factory, options)
    made = factory(name, **options)
    if not isinstance(made, Backend):
        raise TypeError(f"the backend {label} must return a treehub_level Backend, not {made!r:.80}")
    return made


def _find(name: str) -> Factory:
    if name in _registered:
        return _registered[name]
    if name in _BUILT_IN:
        return _import_built_in(name)
    for entry_point in entry_points(group=GROUP, name=name):
        return _load(entry_point)
    raise BackendNotFoundError(f"no backend is called {name!r}; installed: {', '.join(_installed())}")


def _import_built_in(name: str) -> Factory:
    missing: list[ImportError] = []
    for module, class_name in _BUILT_IN[name]:
        try:
            factory: Factory = getattr(import_module(module, __package__), class_name)
        except ImportError as error:
            missing.append(error)
        else:
            return factory
    remedy = f'pip install "treehub-level[{_EXTRAS[name]}]"; ' if name in _EXTRAS else ""
    raise BackendNotFoundError(
        f"the library that the backend {name!r} needs is not installed ({'; '.join(map(str, missing))}): "
        f"{remedy}installed: {', '.join(_installed())}"
    ) from missing[-1]


def _load(entry_point: EntryPoint) -> Factory:
    try:
        factory = entry_point.load()
    except Exception as error:
        raise BackendNotFoundError(
            f"the backend {entry_point.name!r} is installed as {entry_point.value}, which cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(factory):
        raise BackendNotFoundError(
            f"the backend {entry_point.name!r} is installed as {entry_point.value}, which is no Backend subclass nor a "
            f"callable that returns a Backend, but {factory!r:.80}"
        )
    found: Factory = factory
    return found


def _installed() -> list[str]:
    """Every name that could be asked for here and now."""
    ours = {name for name in _BUILT_IN if _importable(name)}
    return sorted(ours | _registered.keys() | {entry_point.name for entry_point in entry_points(group=GROUP)})


def _importable(name: str) -> bool:
    for module, _ in _BUILT_IN[name]:
        with suppress(ImportError):
            import_module(module, __package__)
            return True
    return False


def _check_options(label: str, factory: Factory, options: Mapping[str, object]) -> None:
    """Name the option that is unknown, rather than let the call fail with the factory's own words."""
    try:
        _, *parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # written in C, and silent about what it takes; or it takes nothing, not even the name
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [parameter.name for parameter in parameters if parameter.kind in by_name]
    for option in options:
        if option not in known:
            takes = f"its options are {', '.join(known)}" if known else "it takes none"
            raise TypeError(f"the backend {label} has no option {option!r}; {takes}")
