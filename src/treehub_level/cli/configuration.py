"""The configuration file of ``serve``: TOML with the options of its command line.

The options are those of the command itself, so a new option of ``serve`` is one of the file, too.
An option on the command line wins over its environment variable, and that wins over
the file (`Context.default_map` of click).
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import typer

from ..extras import missing
from .errors import CommandError, is_usage_error

logger = logging.getLogger("treehub_level.http")

#: Options that are about the file itself, and so are not in it.
_ABOUT_THE_FILE: Final = ("config", "check_config", "print_config", "help")
#: A commented option is set by removing the first character of its line.
_COMMENT_WIDTH: Final = 98
_HEAD: Final = """\
# The configuration of `treehub-level serve`, printed by its option --print-config.
#
# Each name is that of an option: `max-open` stands for --max-open. A line that begins with `#name`
# has the default, or a placeholder; remove the `#` to set it. An option on the command line wins
# over its environment variable (TREEHUB_LEVEL_SERVE_MAX_OPEN for --max-open), and that wins over
# this file. Relative paths begin in the working directory of the server. Check the file with
# `treehub-level serve --config FILE --check-config`. A change takes effect at the next start.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """An option of a command, as the file has it.

    Attributes:
        name: The name in the file: that of the option without hyphens at its begin.
        parameter: The parameter of click.
        kind: The type of the value, or of an item: `bool`, `int`, `float` or `str`.
        is_list: True if the option may be repeated. The file then has an array.
        has_parser: True if the option has a syntax of its own, such as ``6h`` for a duration. A
            number then stands for its digits.
    """

    name: str
    parameter: Any
    kind: type
    is_list: bool
    has_parser: bool

    @property
    def expected(self) -> str:
        """The values that fit, for people."""
        one, many = {
            bool: ("true or false", "booleans"),
            int: ("an integer", "integers"),
            float: ("a number", "numbers"),
        }.get(self.kind, ("a string", "strings"))
        return f"an array of {many}" if self.is_list else "a string" if self.has_parser else one

    def fits(self, value: object) -> bool:
        """Return True if a value of the file has the type of this option."""
        if self.is_list:
            return isinstance(value, list) and all(map(self._fits_one, value))
        return self._fits_one(value)

    def _fits_one(self, value: object) -> bool:
        if self.has_parser:
            return type(value) in (str, int, float)
        return type(value) is self.kind or (self.kind is float and type(value) is int)

    def default_text(self) -> str:
        """Return the default of the option in TOML, or a placeholder if it has none."""
        default = self.parameter.default
        if default in (None, (), []):
            text = self.parameter.metavar or self.name.upper()
            is_number = self.kind in (int, float) and not self.has_parser
            default = (getattr(self.parameter, "min", None) or 0) if is_number else text
            default = [default] if self.is_list else default
        return _toml(default)


def settings_of(command: Any) -> dict[str, Setting]:
    """Return the options of a command by their names in a file, in the order of its signature."""
    hints = get_type_hints(command.callback, include_extras=True)
    found = {}
    for parameter in command.params:
        if parameter.name in _ABOUT_THE_FILE or getattr(parameter, "hidden", False):
            continue
        name = max(parameter.opts, key=len).lstrip("-")
        kind, has_parser = _kind_of(hints[parameter.name])
        found[name] = Setting(name, parameter, kind, parameter.multiple, has_parser)
    return found


def _kind_of(hint: Any) -> tuple[type, bool]:
    """Return the type of a value of an option, and True if the option parses its text itself."""
    has_parser = False
    if get_origin(hint) is Annotated:
        hint, *metadata = get_args(hint)
        has_parser = any(getattr(item, "parser", None) or getattr(item, "click_type", None) for item in metadata)
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    kind = get_args(kinds[0])[0] if get_origin(kinds[0]) is list else kinds[0]
    return (kind if kind in (bool, int, float) else str), has_parser


class ConfigurationFile:
    """A configuration file, read and checked.

    Args:
        path: The file.
        context: The context of the command whose options it has.

    Attributes:
        path: The file.
        values: The value of each option that the file sets, by the name of the parameter.

    Raises:
        CommandError: The file cannot be read, is not TOML, or has faults: the message names each.
    """

    def __init__(self, path: str, context: typer.Context) -> None:
        self.path = path
        self._context = context
        self._settings = settings_of(context.command)
        self.values = self._read()

    def changed_options(self) -> list[str]:
        """Read the file again, and return the names of the options that have another value now.

        Raises:
            CommandError: As for the class.
        """
        read = self._read()
        return [
            name
            for name, setting in self._settings.items()
            if read.get(setting.parameter.name) != self.values.get(setting.parameter.name)
        ]

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.path, encoding="utf-8", newline="") as file:
                text = file.read()
        except OSError as error:
            raise self._fault(f"it cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise self._fault("it is not UTF-8: save it as UTF-8") from error
        parse, syntax_error = _toml_parser()
        try:
            document = parse(text)
        except syntax_error as error:
            raise self._fault(f"it is not TOML: {error}") from error
        faults = [*self._faults(document, text)]
        if faults:
            raise self._fault("; ".join(faults))
        return {self._settings[name].parameter.name: self._value(name, value) for name, value in document.items()}

    def _value(self, name: str, value: Any) -> Any:
        if not self._settings[name].has_parser:
            return value
        return [str(item) for item in value] if isinstance(value, list) else str(value)

    def _faults(self, document: Mapping[str, Any], text: str) -> Iterator[str]:
        for name, value in document.items():
            fault = self._fault_of(name, value)
            if fault is not None:
                line = _line_of(name, text)
                yield fault if line is None else f"line {line}: {fault}"

    def _fault_of(self, name: str, value: Any) -> str | None:
        setting = self._settings.get(name)
        if setting is None:
            return _unknown(name, value, [*self._settings])
        if not setting.fits(value):
            return f"{name} must be {setting.expected}, not {_described(value)}"
        try:
            setting.parameter.process_value(self._context, self._value(name, value))
        except Exception as error:
            if not is_usage_error(error):
                raise
            return f"{name}: {getattr(error, 'message', error)}"
        return None

    def _fault(self, message: str) -> CommandError:
        return CommandError(f"the configuration file {self.path}: {message}", code="CLI_CONFIG")


def _toml_parser() -> tuple[Callable[[str], dict[str, Any]], type[Exception]]:
    """Return the function that parses TOML, and the class of its errors."""
    try:
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
    except ModuleNotFoundError as error:
        raise CommandError(missing("--config", error.name, "cli"), code="CLI_MISSING_EXTRA") from error
    return tomllib.loads, tomllib.TOMLDecodeError


def _line_of(name: str, text: str) -> int | None:
    """Return the number of the line that sets an option, or begins a table; ``None`` if unknown."""
    quoted = re.escape(name)
    found = re.search(rf"^[ \t]*\[*[ \t]*(?:{quoted}|\"{quoted}\"|'{quoted}')[ \t]*[=.\]]", text, re.MULTILINE)
    return None if found is None else text.count("\n", 0, found.start()) + 1


def _unknown(name: str, value: Any, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower().replace("_", "-").lstrip("-"), known, 1)
    if near:
        return f"there is no option {name!r}: did you mean {near[0]!r}?"
    if isinstance(value, dict):
        return f"the table [{name}]: options have no tables, so remove this line"
    return f"there is no option {name!r}: `treehub-level serve --print-config` lists the options"


def _described(value: object) -> str:
    """Return a value of a wrong type, for people. A long one is shortened."""
    match value:
        case dict():
            return "a table"
        case list():
            wrong = next((item for item in value if not isinstance(item, str)), None)
            return "an array" if wrong is None else f"an array with {_described(wrong)}"
    return f"{_toml(value):.40}"


# ----------------------------------------------------------------------------------------- writing


def configuration_text(context: typer.Context) -> str:
    """Return a complete configuration file of a command, with a comment for each option.

    Options of the command line and of its configuration file are set, the others are commented.
    Values of environment variables stay there, since they may be secrets.
    """
    settings = settings_of(context.command)
    lines = [_HEAD]
    panels: dict[str | None, list[Setting]] = {None: []}
    for setting in settings.values():
        panels.setdefault(setting.parameter.rich_help_panel, []).append(setting)
    for panel, members in panels.items():
        if panel is not None:
            lines.append(f"# {f' {panel} ':-^{_COMMENT_WIDTH - 2}}\n")
        for setting in members:
            lines += textwrap.wrap(setting.parameter.help, _COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# ")
            value = _given(context, setting)
            text = setting.default_text() if value is None else _toml(value)
            lines.append(f"{'#' if value is None else ''}{setting.name} = {text}\n")
    return "\n".join(lines)


def _given(context: typer.Context, setting: Setting) -> Any:
    """Return the value that the command line or the file gives; ``None`` if neither does."""
    source = context.get_parameter_source(setting.parameter.name)
    if source is None or source.name not in ("COMMANDLINE", "DEFAULT_MAP"):
        return None
    if source.name == "DEFAULT_MAP":
        return context.lookup_default(setting.parameter.name)
    return context.params[setting.parameter.name]


def _toml(value: object) -> str:
    """Return a value in TOML, whose strings are those of JSON but for one control character."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if value == int(value) and abs(value) < 10**6 else repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


# -------------------------------------------------------------------------------------- the option


def warn_of_unknown_variables(context: typer.Context) -> None:
    """Log a warning for each environment variable that looks like one of an option, and is none.

    No error: an orchestrator may set variables of its own that begin with the name of a service.
    """
    prefix = f"{context.auto_envvar_prefix}_"
    known = {f"{prefix}{parameter.name.upper()}" for parameter in context.command.params}
    for name in sorted({name for name in os.environ if name.startswith(prefix)} - known):
        near = difflib.get_close_matches(name, known, 1, cutoff=0)
        logger.warning("the environment variable %s stands for no option: did you mean %s?", name, near[0])


def report_changed_options(context: typer.Context) -> None:
    """Log which options of the configuration file take effect at the next start. Raise no error."""
    file = context.find_object(ConfigurationFile)
    if file is None:
        return
    try:
        changed = file.changed_options()
    except CommandError as error:
        logger.error("SIGHUP: %s; the options of the start stay in use", error)
        return
    if changed:
        logger.warning(
            "SIGHUP: the options %s in %s take effect at the next start of the server", ", ".join(changed), file.path
        )


def _load(context: typer.Context, path: str | None) -> str | None:
    """Take the values of the file as the defaults of the command."""
    if path is not None and not context.resilient_parsing:
        file = ConfigurationFile(path, context)
        context.obj = file
        context.default_map = file.values
    return path


_PANEL = "Configuration"

Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=_load,
        help="A TOML file with any of these options; those on the command line win.",
        rich_help_panel=_PANEL,
    ),
]
CheckConfig = Annotated[
    bool,
    typer.Option(
        "--check-config",
        help="Check all options and the files that they name, and exit: 0 if a server could start.",
        rich_help_panel=_PANEL,
    ),
]
PrintConfig = Annotated[
    bool,
    typer.Option(
        "--print-config",
        help="Print a configuration file with the given options and, as comments, all others, and exit.",
        rich_help_panel=_PANEL,
    ),
]
