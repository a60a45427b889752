"""Searches every file in the lake's directory for rows of a person: what is left, and what could not be searched.

An erasure ends with this. It relies on no list of files: files that are in no metadata, the trash of removed feeds,
logs, copies that an operator made and files of a killed run are all in the lake's directory.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ksql_lake.base.figures import counted
from ksql_lake.model.target import Target
from ksql_lake.model.values import spellings
from ksql_lake.store.lake import everything
from ksql_lake.store.layout import storage_of
from ksql_lake.store.parquet import open_parquet

KEY = b"ksql_lake"
SIGNIFICANT = 6  # characters that make a text significant; a shorter one only counts next to the name of its column
MAGIC = 64 << 10  # bytes that decide whether a file is text


@dataclass(frozen=True)
class Left:
    """A file that still holds something: rows of a Parquet file, or lines of text that mention the value."""

    path: str
    rows: int = 0
    lines: int = 0

    def __str__(self) -> str:
        if self.rows:
            return (
                f"{self.path}: holds {counted(self.rows, 'row')}; delete it or move it out of the lake, then "
                "erase again"
            )
        return f"{self.path}: mentions the value in {counted(self.lines, 'line')}; edit or delete it, then erase again"


@dataclass(frozen=True)
class Unseen:
    """What could not be searched, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: not searched: {self.why}"


@dataclass
class SearchResult:
    """The result of searching all files: how many of each kind, and what to report.

    `remote`: a line for each thing in the lake's remote that could not be searched, or stays there in part.
    """

    parquet_files: int = 0
    text_files: int = 0
    left: list[Left] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)
    remote: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.left)

    @property
    def clean(self) -> bool:
        """Whether nothing is left, and nothing was skipped."""
        return not self.left and not self.unseen and not self.remote

    def to_json(self) -> dict[str, Any]:
        return {
            "looked_at": {"parquet_files": self.parquet_files, "text_files": self.text_files},
            "left": [asdict(one) for one in self.left], "not_looked_at": [asdict(one) for one in self.unseen],
            **({"remote": self.remote} if self.remote else {}),
        }


def search(lake: Path, target: Target, feeds: Collection[str], closed: Mapping[str, str]) -> SearchResult:
    """Search every file in the lake's directory; links are not followed.

    Args:
        feeds: only what belongs to these, or to no feed; empty for all.
        closed: feeds that are busy or damaged, and why: what they have in staging cannot be searched.
    """
    found = SearchResult(unseen=[Unseen(f"feed {feed}", why) for feed, why in sorted(closed.items())])
    needle = _Needle.of(target)
    for path, unseen in everything(lake):
        parts = path.relative_to(lake).parts
        if unseen:
            found.unseen.append(Unseen("/".join(parts) or ".", unseen))
            continue
        feed = feed_of(parts)
        if (feeds and feed and feed not in feeds) or (feed in closed and parts[0] == ".staging"):
            continue
        name = "/".join(parts)
        try:
            _one(path, name, target, needle, found)
        except FileNotFoundError:
            continue  # a running export replaced it; what came instead is its result
        except OSError as error:
            found.unseen.append(Unseen(name, error.strerror or str(error)))
    return found


def _one(path: PurePath, name: str, target: Target, needle: _Needle, found: SearchResult) -> None:
    with storage_of(path).open(path) as file:
        start = file.read(MAGIC)
    if path.suffix == ".parquet" or start[:4] == b"PAR1":
        found.parquet_files += 1
        try:
            if rows := _rows(path, target):
                found.left.append(Left(name, rows=rows))
        except (pa.ArrowException, ValueError) as error:
            found.unseen.append(Unseen(name, f"not readable as Parquet ({str(error).splitlines()[0]})"))
    elif _is_text(start):
        found.text_files += 1
        if lines := needle.lines(path):
            found.left.append(Left(name, lines=lines))
    else:
        found.unseen.append(Unseen(name, "neither Parquet nor text"))


def feed_of(parts: tuple[str, ...]) -> str | None:
    """The feed that a file belongs to, by its place in the lake."""
    if parts[0] in ("streams", "tables", ".staging", "quarantine") and len(parts) > 2:
        return parts[1]
    if parts[0] == ".trash" and len(parts) > 3:
        return parts[2]
    if parts[0] == ".state" and parts[-1] != "erasures.jsonl" or parts[0] == "feeds" and len(parts) == 3:
        return parts[-1].removesuffix(".jsonl").removesuffix(".lock").removesuffix(".json")
    return None


def _rows(path: PurePath, target: Target) -> int:
    """Rows of a Parquet file, by the names its own footer gives to its columns."""
    with open_parquet(path) as parquet:
        meant = Target(target.column, target.value, _names(parquet))
        columns = meant.columns(parquet.schema_arrow)
        if not columns:
            return 0
        return sum(int(meant.rows_of(batch).sum()) for batch in parquet.iter_batches(columns=columns))


def _names(parquet: pq.ParquetFile) -> dict[str, str]:
    try:
        columns = json.loads((parquet.metadata.metadata or {})[KEY])["columns"]
        return {column["disk_name"]: column["name"] for column in columns}
    except (KeyError, TypeError, ValueError):
        return {}  # not written by this tool


def _is_text(start: bytes) -> bool:
    if b"\0" in start:
        return False
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4 and len(start) == MAGIC  # a character cut at the end of what was read
    return True


@dataclass(frozen=True)
class _Needle:
    """A value as text; `beside`: the column's name, where the value alone is too common."""

    value: re.Pattern[bytes]
    beside: re.Pattern[bytes] | None

    @classmethod
    def of(cls, target: Target) -> _Needle:
        text = target.value
        plain = json.dumps(text, ensure_ascii=False)
        forms = {text, json.dumps(text)[1:-1], plain[1:-1], html.escape(text), repr(text)[1:-1]}
        common = any(one.startswith(("boolean:", "date:", "time:", "timestamp:")) for one in spellings(text))
        significant = len(text) >= SIGNIFICANT and not common
        name = None if significant else _word([target.column.rpartition(".")[2]], re.IGNORECASE, b"=/")
        return cls(_word(sorted(forms), around=b"" if significant else b"=/"), name)

    def lines(self, path: PurePath) -> int:
        """How many lines of a file mention the value; of JSON, only what is written for people or by them."""
        is_json = path.suffix in (".json", ".jsonl", ".aside")
        if not is_json:
            with storage_of(path).open(path) as file:
                return sum(self._meets(line) for line in file)
        if path.suffix != ".jsonl":
            return sum(self._meets(text) for text in _texts(storage_of(path).read(path)))
        with storage_of(path).open(path) as file:
            return sum(any(self._meets(text) for text in _texts(line)) for line in file)

    def _meets(self, text: bytes) -> bool:
        return bool(self.value.search(text)) and (self.beside is None or bool(self.beside.search(text)))


def _word(forms: list[str], flags: int = 0, around: bytes = b"") -> re.Pattern[bytes]:
    """One of these as a whole word; `around`: what besides letters and digits would make it part of another word."""
    one = b"|".join(re.escape(form.encode("utf-8", "surrogatepass")) for form in forms)
    return re.compile(rb"(?<![\w." + around + rb"-])(?:" + one + rb")(?![\w" + around + rb"-]|\.\w)", flags)


def _texts(raw: bytes) -> Iterator[bytes]:
    """The texts in JSON, keys included; the whole line where it is not JSON."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        yield raw
        return
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str):
            yield one.encode("utf-8", "surrogatepass")
