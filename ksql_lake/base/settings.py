"""How settings are read: the environment first, then a settings file, then the defaults; and where each came from."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ksql_lake.base.errors import ConfigError

DEFAULTS = "data_lake_config.py"


@dataclass(frozen=True)
class SettingsFile:
    """The content of a settings file as text; `path` is None where there is none."""

    path: Path | None = None
    values: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold secrets


def read_file(path: Path, *, must_exist: bool) -> SettingsFile:
    """Read a settings file: TOML, one `NAME = value` a line.

    Raises:
        ConfigError: it cannot be read, is not TOML, or holds more than names and plain values.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        if not must_exist:
            return SettingsFile()
        raise ConfigError(f"DATA_LAKE_SETTINGS: there is no file {path}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    import tomllib  # loaded only where there is such a file

    try:
        said = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        example = 'KSQLDB_URL = "http://host:8088"'
        raise ConfigError(f"{path}: is not TOML ({error}); a setting looks like this: {example}") from None
    values = {}
    for name, value in said.items():
        if isinstance(value, bool):
            values[name] = "on" if value else "off"
        elif isinstance(value, str | int | float):
            values[name] = str(value)
        else:
            raise ConfigError(f"{path}: {name} must be text, a number, true or false")
    return SettingsFile(path, values)


class Reader:
    """Reads settings by name, and remembers in `origins` where each came from."""

    def __init__(self, env: Mapping[str, str], file: SettingsFile) -> None:
        self.env, self.file = env, file
        self.origins: dict[str, str] = {}

    def _given(self, name: str, default: str) -> str:
        if given := self.env.get(name):
            self.origins[name] = "environment"
        elif given := self.file.values.get(name):
            self.origins[name] = str(self.file.path)
        else:
            self.origins[name] = DEFAULTS if default else "not set"
        return given or default

    def text(self, name: str, default: object) -> str:
        return self._given(name, str(default))

    def optional(self, name: str, default: str = "") -> str | None:
        return self._given(name, default) or None

    def path(self, name: str, default: str = "") -> Path | None:
        text = self._given(name, default)
        return local_path(name, text) if text else None

    def number(self, name: str, default: object, low: float, high: float) -> float:
        text = self.text(name, default)
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ConfigError(f"{name} is {text!r}; expected a number from {low:g} to {high:g}")
        return value

    def whole(self, name: str, default: object, low: int, high: int) -> int:
        value = self.number(name, default, low, high)
        if value != int(value):
            raise ConfigError(f"{name} is {value:g}; expected a whole number from {low} to {high}")
        return int(value)

    def choice(self, name: str, default: str, allowed: Sequence[str]) -> str:
        text = self.text(name, default)
        match = next((item for item in allowed if item.lower() == text.lower()), None)
        if match is None:
            raise ConfigError(f"{name} is {text!r}; expected one of {', '.join(allowed)}")
        return match

    def password(self, name: str) -> str | None:
        """A secret, or the content of the file that `<name>_FILE` names."""
        file = self.path(f"{name}_FILE")
        given = self.optional(name)
        if given or not file:
            return given
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"{name}_FILE: {file} cannot be read ({error.strerror})") from None

    def refuse_unknown(self, also: Iterable[str] = ()) -> None:
        """Refuse a name in the file that is not a setting: a typing mistake that would be ignored silently.

        Raises:
            ConfigError: names it and the nearest setting.
        """
        known = {*self.origins, *also}
        for name in self.file.values:
            if name not in known:
                close = difflib.get_close_matches(name.upper(), known, 1)
                hint = f"did you mean {close[0]}?" if close else "see settings.example.toml"
                raise ConfigError(f"{self.file.path}: no setting is called {name}; {hint}")


def local_path(name: str, text: str) -> Path:
    """A path on a local disk from a setting or an option, with `~` expanded, relative to the current directory.

    Raises:
        ConfigError: it is a URL, or holds a variable that no shell has expanded.
    """
    if "://" in text:
        raise ConfigError(f"{name} is {text!r}; expected a directory or file on a local disk, not a URL")
    if "$" in text:
        raise ConfigError(f"{name} is {text!r}, and nothing expands the $ here; write the path out, or use ~")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name} is {text!r}, and there is no such home directory; write the path out") from None


def lake_path(name: str, text: str | os.PathLike[str]) -> Path:
    """The directory of a lake, absolute and without links."""
    if "://" in str(text):
        raise ConfigError(
            f"{name} is {str(text)!r}, but a lake must be on a local disk; to keep a copy of it in a bucket, see "
            "docs/object_stores.md"
        )
    return local_path(name, str(text)).resolve()


def ping_url(name: str, text: str) -> str:
    """The text, when it can be pinged; the message does not repeat it, for it holds a secret.

    Raises:
        ConfigError: names the setting or option.
    """
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or " " in text or not (text.isascii() and text.isprintable()):
        raise ConfigError(
            f"{name} is not a URL that can be pinged; expected http:// or https://, such as https://hc-ping.com/<uuid>"
        )
    return text
