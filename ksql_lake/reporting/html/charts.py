"""Small charts as SVG text: columns, a meter, a calendar heat map. Colours come from classes of the page's style.

Charts contain no text except month names: labels are beside them, and every mark has its figures as a tooltip.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ksql_lake.base.text import markup

CELL, GAP = 14, 3  # pixels of a day of the calendar; the style of the page says the first again
WEEKS = 13  # of a strip: four of them, a year, lie side by side on a wide screen, below each other on a narrow one
STRIPS = 16  # of a calendar, the newest so many
MONTH = 62  # pixels of the name of a month with its year
WIDEST = 24  # pixels of a column
STEPS = 4  # shades of the calendar, besides that of no rows


@dataclass(frozen=True)
class Bar:
    """One column: `title` is its tooltip, `style` a class for its colour."""

    value: float
    title: str
    style: str = ""


def columns(bars: Sequence[Bar], label: str, height: int = 72, widest: float = WIDEST) -> str:
    """Columns, at least a pixel high where there is something, none wider than `widest` pixels: the axis ends where
    the data end."""
    if not bars:
        return ""
    most = max(bar.value for bar in bars) or 1.0
    step = 100 / len(bars)
    marks = []
    for number, bar in enumerate(bars):
        high = max(bar.value / most * (height - 2), 1.5 if bar.value else 0)
        style = f' class="{bar.style}"' if bar.style else ""
        # the whole height reacts to the pointer: a small column is hard to hit
        marks.append(
            f'<g{style}><rect class="hit" x="{number * step:.3f}" y="0" width="{step:.3f}" height="{height}"/>'
            f'<rect x="{(number + 0.12) * step:.3f}" y="{height - high:.1f}" width="{step * 0.76:.3f}" '
            f'height="{high:.1f}"/><title>{markup(bar.title)}</title></g>'
        )
    return (
        f'<svg class="columns" viewBox="0 0 100 {height}" preserveAspectRatio="none" '
        f'style="height:{height}px;max-width:{len(bars) * widest:g}px" '
        f'role="img" aria-label="{markup(label)}">{"".join(marks)}</svg>'
    )


def meter(share: float, title: str, style: str = "") -> str:
    """A bar of 0 to 1; more than 1 is drawn as 1."""
    width = max(min(share, 1.0) * 100, 0.8 if share > 0 else 0)
    return (
        f'<svg class="meter {style}" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" '
        f'aria-label="{markup(title)}"><rect class="track" width="100" height="6"/>'
        f'<rect width="{width:.1f}" height="6"/><title>{markup(title)}</title></svg>'
    )


def thresholds(values: Sequence[float]) -> list[float]:
    """The upper bounds of the calendar's shades but the last: quartiles, so that one great day hides no other."""
    ordered = sorted(value for value in values if value > 0)
    return [ordered[len(ordered) * step // STEPS] for step in range(1, STEPS)] if ordered else [0.0] * (STEPS - 1)


def shade(value: float, bounds: Sequence[float]) -> int:
    """0 for nothing, 1 to STEPS for more and more."""
    return 0 if value <= 0 else 1 + sum(value > bound for bound in bounds)


def calendar(
    values: Mapping[dt.date, float], titles: Mapping[dt.date, str], last: dt.date, label: str, most: int = STRIPS
) -> list[str]:
    """A heat map of days, a strip for each 13 weeks up to `last`, the oldest first.

    Args:
        values: of the days that have any; decides their shade.
        titles: the tooltips of these days.
        most: strips at most; older days are not drawn.
    """
    known = [day for day in values if day <= last]
    if not known:
        return []
    bounds = thresholds([values[day] for day in known])
    end = last - dt.timedelta(days=last.weekday())  # the Monday of the last week
    begin = min(known) - dt.timedelta(days=min(known).weekday())
    total = (end - begin).days // 7 + 1
    strips: list[str] = []
    while total > 0 and len(strips) < most:
        weeks = min(total, WEEKS)
        first = end - dt.timedelta(weeks=weeks - 1)
        strips.append(_strip(first, weeks, (min(known), last), values, titles, bounds, label))
        total -= weeks
        end = first - dt.timedelta(weeks=1)
    return strips[::-1]


def _strip(
    first: dt.date, weeks: int, span: tuple[dt.date, dt.date], values: Mapping[dt.date, float],
    titles: Mapping[dt.date, str], bounds: Sequence[float], label: str,
) -> str:
    size, left, top = CELL + GAP, 34, 18
    marks = [
        f'<text x="{left - 6}" y="{top + row * size + 11}" text-anchor="end">{name}</text>'
        for row, name in ((0, "Mon"), (2, "Wed"), (4, "Fri"))
    ]
    named = -9
    for week in range(weeks):
        monday = first + dt.timedelta(weeks=week)
        x = left + week * size
        if week - named >= 3 and (monday.day <= 7 or week == 0) and (week < weeks - 1 or weeks == 1 or week == 0):
            year = f" {monday.year}" if named < 0 or monday.month == 1 else ""
            marks.append(f'<text x="{x}" y="11">{monday:%b}{year}</text>')
            named = week + (1 if year else 0)
        for row in range(7):
            day = monday + dt.timedelta(days=row)
            if not span[0] <= day <= span[1]:
                continue
            marks.append(
                f'<rect class="s{shade(values.get(day, 0), bounds)}" x="{x}" y="{top + row * size}">'
                f"<title>{markup(titles.get(day) or f'{day}: no rows')}</title></rect>"
            )
    width, height = left + max(weeks * size, MONTH), top + 7 * size
    return (
        f'<svg class="calendar" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{markup(label)}">{"".join(marks)}</svg>'
    )
