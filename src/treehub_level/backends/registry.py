"""The registry of backend names, and the factory for the ``backend`` argument of ``Level``.

A name is looked up in three places, in this order: the names registered by the program, the
built-in names, the entry points of the group ``treehub_level.backends``. A backend's module is
imported when its name is first looked up.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Final

from .. import extras
from ..errors import BackendNotFoundError
from .base import Backend

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

#: Returns a backend for the name of a level and the options of the backend, given as keywords.
Factory = Callable[..., Backend]

GROUP: Final = "treehub_level.backends"

#: The built-in backends as (module, class). The first whose vendor's library is installed is used.
_BUILT_IN: Final = {
    "leveldb": [(".leveldb.native", "LevelDBBackend"), (".leveldb.plyvel", "PlyvelBackend")],
    "memory": [(".memory", "MemoryBackend")],
    "plyvel": [(".leveldb.plyvel", "PlyvelBackend")],
    "postgres": [(".postgres", "PostgresBackend")],
    "sqlite": [(".sqlite", "SQLiteBackend")],
}
#: The library of a built-in backend, and the extra that installs it.
_LIBRARIES: Final = {
    "leveldb": ("plyvel", "plyvel"),
    "plyvel": ("plyvel", "plyvel"),
    "postgres": ("psycopg", "postgres"),
}

_registered: Final[dict[str, Factory]] = {}


def register(name: str, factory: Factory) -> None:
    """Register a backend for this process: ``Level(..., backend=name)`` then uses ``factory``.

    A registered name takes precedence over a built-in name and over an entry point.

    Args:
        name: The name to register. Registering a name again replaces its factory.
        factory: A `Backend` subclass, or a callable that takes the name of the level and options as
            keywords, and returns a `Backend`.

    Raises:
        TypeError: ``name`` is not a str, or ``factory`` is not callable.
    """
    if not isinstance(name, str):
        raise TypeError(f"a backend's name must be a str, not {name!r:.80}")
    if not callable(factory):
        raise TypeError(f"a backend's factory must be a Backend subclass or a callable, not {factory!r:.80}")
    _registered[name] = factory


def create(backend: str | Factory, name: str, options: Mapping[str, object]) -> Backend:
    """Return a new backend, not yet open.

    Args:
        backend: A name, a `Backend` subclass, or a callable that takes ``name`` and returns a
            `Backend`.
        name: The path, label or URL of the level.
        options: The options of the backend.

    Raises:
        BackendNotFoundError: No backend of that name is installed, or its module cannot be
            imported.
        TypeError: ``backend`` is none of the three; it returned an object that is not a `Backend`;
            or it does not take one of the options.
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
    for entry_point in _entry_points().select(name=name):
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
    feature = f"the backend {name!r}"
    library = _LIBRARIES.get(name)
    problem = f"{feature} cannot be imported" if library is None else extras.missing(feature, *library)
    reasons = "; ".join(map(str, missing))
    raise BackendNotFoundError(f"{problem} ({reasons}); installed: {', '.join(_installed())}") from missing[-1]


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
            f"the backend {entry_point.name!r} is installed as {entry_point.value}, which is neither a "
            f"Backend subclass nor a callable that returns a Backend, but {factory!r:.80}"
        )
    found: Factory = factory
    return found


def _entry_points() -> EntryPoints:
    """Return the entry points of all installed backends."""
    from importlib.metadata import entry_points  # a sixth of the time to import treehub_level

    return entry_points(group=GROUP)


def _installed() -> list[str]:
    """Return every name that can be looked up in this process, in alphabetical order."""
    built_in = {name for name in _BUILT_IN if _importable(name)}
    return sorted(built_in | _registered.keys() | {entry_point.name for entry_point in _entry_points()})


def _importable(name: str) -> bool:
    for module, _ in _BUILT_IN[name]:
        with suppress(ImportError):
            import_module(module, __package__)
            return True
    return False


def _check_options(label: str, factory: Factory, options: Mapping[str, object]) -> None:
    """Raise TypeError if the factory does not take an option; the message lists those it takes."""
    try:
        _, *parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # a C function without a signature, or a function without parameters
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [parameter.name for parameter in parameters if parameter.kind in by_name]
    for option in options:
        if option not in known:
            takes = f"its options are {', '.join(known)}" if known else "it takes none"
            raise TypeError(f"the backend {label} has no option {option!r}; {takes}")
