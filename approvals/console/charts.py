"""Charts as SVG made here: no script, no library, the same numbers as a table beside each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from fastapi import APIRouter, Request
from starlette.responses import Response

from approvals.console.figures import Figure, figures
from approvals.console.frame import framed
from approvals.console.login import PageSession

router = APIRouter(include_in_schema=False)

SPANS = {
    "24h": ("Last 24 hours", timedelta(hours=24), timedelta(hours=1), "%H:%M"),
    "7d": ("Last 7 days", timedelta(days=7), timedelta(hours=6), "%d %b"),
}
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 240, 48, 28, 12
_COLOURS = 8


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    colour: int
    label: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """Where what is, in the units of the viewBox."""

    figure: Figure
    bars: list[Bar]
    grid: list[tuple[float, str]]
    ticks: list[tuple[float, str]]
    is_empty: bool


@router.get("/charts")
async def show_charts(request: Request, _: PageSession, span: str = "24h") -> Response:
    chosen = span if span in SPANS else "24h"
    _name, length, step, form = SPANS[chosen]
    services = request.app.state.services
    found = await figures(services.pool, services.audit, span=length, step=step)
    return await framed(
        request,
        "charts.html",
        title="Charts",
        drawings=[draw(figure, form) for figure in found],
        spans=[(key, value[0], key == chosen) for key, value in SPANS.items()],
        step_hours=int(step.total_seconds() // 3600),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        bottom=BOTTOM,
        colours=_COLOURS,
    )


def draw(figure: Figure, form: str = "%H:%M") -> Drawing:
    """Bars: stacked where the series add up, else side by side."""
    count = len(figure.steps)
    tops = [
        sum(series.values[at] or 0 for series in figure.series)
        if figure.is_stacked
        else max((series.values[at] or 0 for series in figure.series), default=0)
        for at in range(count)
    ]
    most = ceiling(max(tops, default=0))
    plot_width, plot_height = WIDTH - LEFT - 8, HEIGHT - TOP - BOTTOM
    slot = plot_width / max(count, 1)
    bars = []
    for at in range(count):
        base = 0.0
        for number, series in enumerate(figure.series):
            value = series.values[at]
            if not value:
                continue
            height = plot_height * value / most
            width = slot * 0.8 if figure.is_stacked else slot * 0.8 / len(figure.series)
            x = LEFT + slot * at + slot * 0.1 + (0 if figure.is_stacked else width * number)
            y = HEIGHT - BOTTOM - height - base
            label = f"{figure.steps[at]:%Y-%m-%d %H:%M}Z {series.name}: {shown(value)} {figure.unit}"
            bars.append(Bar(round(x, 1), round(y, 1), round(width, 1), round(height, 1), number % _COLOURS, label))
            base += height if figure.is_stacked else 0
    grid = [(round(HEIGHT - BOTTOM - plot_height * part / 4, 1), shown(most * part / 4)) for part in range(5)]
    every = max(count // 6, 1)
    ticks = [(round(LEFT + slot * (at + 0.5), 1), f"{figure.steps[at]:{form}}") for at in range(0, count, every)]
    return Drawing(figure, bars, grid, ticks, not bars)


def ceiling(value: float) -> float:
    """The next number that divides well, at least 4: the top of the axis."""
    top = 4.0
    while top < value:
        for factor in (2, 2.5, 2):
            top *= factor
            if top >= value:
                break
    return top


def shown(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
