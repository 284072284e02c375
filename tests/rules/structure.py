"""The package's source as data: its modules, their imports, and the rules that these must keep.

Each rule is a function from sources to violations, so that a test can run it over the package and
over a made-up source that breaks it.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final, NamedTuple

import treehub_level

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = Path(treehub_level.__file__).parent
NAME: Final = "treehub_level"

#: The compiled modules: they have no source in Python.
COMPILED: Final = {f"{NAME}._core_c", f"{NAME}._store_c"}

#: From bottom to top. A module may import modules of its own line and of the lines above it in this
#: list.
LAYERS: Final = [
    ["errors", "escapes", "events", "extras", "fsync", "locks", "redaction", "tracing", "types", "weak_registry"],
    ["_core", "_core_c", "_core_py", "_store_c", "backends"],
    ["engine", "ordered"],
    ["replication"],
    ["checks", "maintenance", "merge"],
    ["blocking"],
    ["aio"],
    [NAME],  # the public names
    ["http"],
    ["__main__", "cli", "integrations", "testing"],
]
RANKS: Final = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

#: Private modules that the whole package imports: the selector of the core, both cores, the native
#: engine.
SHARED_PRIVATE: Final = {"_core", "_core_c", "_core_py", "_store_c"}

#: Private names of the standard library that are documented for use: methods of every named tuple.
DOCUMENTED_PRIVATE: Final = {"_asdict", "_fields", "_make", "_replace"}

#: The packages that each folder of tests is about. Only its tests may import their private names.
TESTED: Final = {
    "tests/backends": ["backends"],
    "tests/cli": ["cli"],
    "tests/core": ["_core_py"],
    "tests/crash": ["backends.leveldb"],
    "tests/http/client": ["http.client"],
    "tests/http/server": ["http.server"],
    "tests/replication": ["replication"],
    "tests/simulation": ["replication"],
    "tests/testing": ["testing"],
}

#: Classes that stand in for each other, and therefore share their name: one for asyncio, one that
#: blocks, and for snapshots the contract of backends; a refusal as an exception and as an event.
#: Each is defined once below each of these packages or modules.
COUNTERPARTS: Final = {
    "Level": ("aio", "blocking"),
    "LiveSession": ("aio", "blocking"),
    "Refused": ("errors", "events"),
    "RemoteServer": ("http.client.remote", "http.client.blocking"),
    "Snapshot": ("aio", "blocking", "backends.base"),
    "Sublevel": ("aio", "blocking"),
    "Typed": ("aio", "blocking"),
    "WriteBatch": ("aio", "blocking"),
    "_EffectRunner": ("http.client.remote", "http.client.blocking"),
}

#: Attributes that hold an object of another package, and this package.
HELD: Final = {"_blocking": "blocking"}


class Source(NamedTuple):
    """One module's source.

    Attributes:
        module: Its dotted name; the path with dots for a file outside of the package.
        package: The dotted name of the package that the module lies in, or is.
        text: The source.
    """

    module: str
    package: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return _parsed(self.text)


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


def source_of(path: Path, root: Path) -> Source:
    """Read a module below a folder that is on the import path."""
    parts = path.relative_to(root).with_suffix("").parts
    package = ".".join(parts[:-1])
    module = package if parts[-1] == "__init__" else ".".join(parts)
    return Source(module, package, path.read_text(encoding="utf-8"))


def package_sources() -> dict[str, Source]:
    """Every module of the package that is written in Python, by its dotted name."""
    sources = [source_of(path, PACKAGE.parent) for path in sorted(PACKAGE.rglob("*.py"))]
    return {source.module: source for source in sources}


def outside_sources() -> list[Source]:
    """The tests, benchmarks and examples."""
    folders = [ROOT / name for name in ("tests", "benchmarks", "examples")]
    return [source_of(path, ROOT) for folder in folders for path in sorted(folder.rglob("*.py"))]


# ------------------------------------------------------------------------------- imports and layers


class Import(NamedTuple):
    """One imported name.

    Attributes:
        line: The line of the statement.
        target: The dotted name of the module or of the name in it.
        bound: The local name that the statement binds; empty for ``import a.b``, which binds ``a``.
    """

    line: int
    target: str
    bound: str


def imports(source: Source) -> Iterator[Import]:
    """Yield the package's names that a module imports, at any depth of its source."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == NAME:
                    yield Import(node.lineno, alias.name, alias.asname or "")
        elif isinstance(node, ast.ImportFrom):
            package = source.package.split(".")
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base.partition(".")[0] == NAME:
                for alias in node.names:
                    yield Import(node.lineno, f"{base}.{alias.name}", alias.asname or alias.name)


def module_of(target: str, known: Iterable[str]) -> str:
    """Return the module of an imported name: the name itself, or the module that has the name."""
    return target if target in known else target.rpartition(".")[0]


def imported_modules(source: Source, known: Iterable[str]) -> set[str]:
    """Return the modules that a module imports, at run time, in functions and for types."""
    return {module_of(each.target, known) for each in imports(source)}


def layer_of(module: str) -> str:
    """Return the name in `LAYERS` that a module belongs to."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def upward_imports(source: Source, known: Iterable[str]) -> list[str]:
    """Return the modules that a module imports from a higher layer."""
    rank = RANKS[layer_of(source.module)]
    return sorted(name for name in imported_modules(source, known) if RANKS[layer_of(name)] > rank)


def import_cycle(sources: dict[str, Source]) -> list[str]:
    """Return the modules of one circular import, with the first repeated at the end, or [].

    Imports in functions and under ``TYPE_CHECKING`` count. A module's import of its own package
    does not, unless it takes a name that the package's ``__init__`` defines or imports.
    """
    known = sources.keys()
    graph = {name: imported_modules(source, known) - {name} for name, source in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return []


# ------------------------------------------------------------------------------------ private names


def is_private(name: str) -> bool:
    """True if a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def owner_of(target: str, packages: set[str]) -> str | None:
    """Return the package that a private dotted name belongs to, or None for a public name."""
    parts = target.split(".")
    for at, part in enumerate(parts):
        if is_private(part) and not (at == 1 and part in SHARED_PRIVATE):
            above = parts[:at]
            while above and ".".join(above) not in packages:
                above.pop()
            return ".".join(above)
    return None


def packages_of(sources: dict[str, Source]) -> set[str]:
    """Return the dotted names of all packages."""
    return {source.package for source in sources.values()}


def own_packages(source: Source) -> list[str]:
    """Return the packages whose private names a module may use: its own, or the tested ones."""
    if source.package.partition(".")[0] == NAME:
        return [source.package]
    folders = {folder.replace("/", "."): packages for folder, packages in TESTED.items()}
    return [
        f"{NAME}.{package}"
        for folder, packages in folders.items()
        if source.package == folder or source.package.startswith(f"{folder}.")
        for package in packages
    ]


def may_use(source: Source, owner: str) -> bool:
    """True if a module may use the private names of a package. Tests may go into subpackages."""
    inside = source.package.partition(".")[0] == NAME
    return any(owner == own or (not inside and owner.startswith(f"{own}.")) for own in own_packages(source))


def private_imports(source: Source, packages: set[str]) -> list[str]:
    """Return the imports of another package's private names, and their uses on imported modules."""
    found = []
    bound: dict[str, str] = {}
    for each in imports(source):
        bound[each.bound or NAME] = each.target if each.bound else NAME
        owner = owner_of(each.target, packages)
        if owner is not None and not may_use(source, owner):
            found.append(f"{source.module}:{each.line}: imports {each.target}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and (path := _dotted(node)):
            first, _, rest = path.partition(".")
            if first not in bound:
                continue
            target = f"{bound[first]}.{rest}"
            owner = owner_of(target, packages)
            # A class that is imported has its attributes checked by the rule for objects.
            if owner is not None and not may_use(source, owner):
                found.append(f"{source.module}:{node.lineno}: uses {target}")
    return found


def _dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` for an attribute of a name, else the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (above := _dotted(node.value)):
        return f"{above}.{node.attr}"
    return ""


def private_definitions(sources: Iterable[Source]) -> dict[str, set[str]]:
    """Return the private names that each package defines, with attributes of ``self``."""
    found: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        names = found[source.package]
        for node in ast.walk(source.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
                names.add(node.attr)
    return {package: {name for name in names if is_private(name)} for package, names in found.items()}


def private_attributes(source: Source, definitions: dict[str, set[str]]) -> list[str]:
    """Return the uses of private attributes that the module's own package does not define.

    An attribute is known by its name alone: ``x._y`` passes if any class of the package has a
    ``_y``, unless ``x`` is one of `HELD`. Attributes of ``self`` and ``cls`` pass, as a subclass
    may use those that it inherits.
    """
    own = definitions.get(source.package, set()) | DOCUMENTED_PRIVATE | SHARED_PRIVATE
    found = []
    for node in ast.walk(source.tree):
        if (used := _attribute(node)) is None or not is_private(used[1]):
            continue
        holder = used[0].attr if isinstance(used[0], ast.Attribute) else ""
        held_elsewhere = holder in HELD and source.package != f"{NAME}.{HELD[holder]}"
        if held_elsewhere or (used[1] not in own and not _is_self(used[0])):
            found.append(f"{source.module}:{used[0].lineno}: uses {ast.unparse(node)}")
    return found


def _attribute(node: ast.AST) -> tuple[ast.expr, str] | None:
    """Return the object and the name in ``x.y`` and ``getattr(x, "y")``, else None."""
    if isinstance(node, ast.Attribute):
        return node.value, node.attr
    match node:
        case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[value, ast.Constant(value=name), *_]):
            return value, str(name)
    return None


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


# -------------------------------------------------------------------------------------- class names


def repeated_classes(sources: Iterable[Source]) -> dict[str, list[str]]:
    """Return the class names defined more than once, with their modules, except counterparts."""
    places: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(source.module)
    return {
        name: sorted(modules)
        for name, modules in places.items()
        if len(modules) > 1 and not _are_counterparts(modules, COUNTERPARTS.get(name, ()))
    }


def _are_counterparts(modules: list[str], declared: tuple[str, ...]) -> bool:
    homes = [home for home in declared for module in modules if f"{module}.".startswith(f"{NAME}.{home}.")]
    return sorted(homes) == sorted(declared) and len(modules) == len(declared)
