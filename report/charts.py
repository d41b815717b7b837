"""Charts as SVG text. Legends are left to the page, where long names can wrap.

A chart is drawn as wide as a narrow screen, so that its text is readable there; a wide screen
enlarges it a little and shows several side by side.
"""

import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    Formatter,
    FuncFormatter,
    Locator,
    MaxNLocator,
    NullLocator,
    ScalarFormatter,
)

_WIDTH, _HEIGHT = 4.6, 3.1  # inches of 72 SVG units
_BAR_HEIGHT = 0.46
_NAME_CHARACTERS = 36
_MAX_TICKS = 7
_MAX_MARKERS = 40
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_DASHES = ("", "6 3", "2 2")
_GREY = "#4b535d"
_STYLE = {
    "svg.fonttype": "none",
    # Fixed, so that the same numbers give the same bytes.
    "svg.hashsalt": "corpusmill",
    "font.family": "sans-serif",
    "font.size": 10,
    # Names of folders may have dollar signs.
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _GREY,
    "axes.titlecolor": _GREY,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e6ea",
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
}

# Ticks of a logarithmic axis are these times powers of ten, from few to many.
_MANTISSAS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0),
    *(tuple(tenths / 10 for tenths in range(10, 100, step)) for step in (10, 5, 2, 1)),
)
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_FRACTIONS = (0.001, 0.01, 0.1)
_TIMES = (
    (1.0, _MINUTE, _HOUR, _DAY, 30 * _DAY),
    (*_FRACTIONS, 1.0, 10.0, _MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 10 * _DAY, 100 * _DAY),
    tuple(
        times * unit
        for unit, several in (
            *((fraction, (1, 2, 5)) for fraction in _FRACTIONS),
            (1.0, (1, 2, 5, 10, 20, 30)),
            (_MINUTE, (1, 2, 5, 10, 20, 30)),
            (_HOUR, (1, 2, 4, 8, 16)),
            (_DAY, (1, 2, 4, 8, 16, 32, 64)),
        )
        for times in several
    ),
)

Format = Callable[[float], str]


@dataclass(frozen=True)
class Style:
    """How a line looks: its colour, and lengths of dashes and gaps as SVG has them, or ''."""

    colour: str
    dashes: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
      name: in the legend.
      x, y: of the same length, at least one point.
      style: how it looks.
    """

    name: str
    x: npt.ArrayLike
    y: npt.ArrayLike
    style: Style


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
      title: what is shown, with its unit.
      kind: `whole` (few whole numbers), `share` (from 0), `log` or `log seconds`.
    """

    title: str
    kind: str

    @property
    def is_log(self) -> bool:
        return self.kind.startswith("log")


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
      title: what it shows.
      svg: an svg element.
      legend: names and styles of its lines; empty where there is nothing to tell apart.
      note: what a reader has to know besides.
    """

    title: str
    svg: str
    legend: tuple[tuple[str, Style], ...] = ()
    note: str = ""


def style_of_run(index: int) -> Style:
    """Tells 21 runs apart."""
    dashes = _DASHES[index // len(_COLOURS) % len(_DASHES)]
    return Style(_COLOURS[index % len(_COLOURS)], dashes)


def style_of_order(order: int, orders: int) -> Style:
    """From dark to light with the order, one of `orders`."""
    shade = mpl.colormaps["viridis"](0.85 * order / max(1, orders - 1))
    return Style("#" + "".join(f"{round(255 * part):02x}" for part in shade[:3]))


def draw_lines(title: str, lines: Sequence[Line], x: Scale, y: Scale, note: str = "") -> Chart:
    """A chart of lines; a logarithmic axis shows only what is above 0."""
    with mpl.rc_context(_STYLE):
        figure, axes = _new_figure(_HEIGHT)
        for line in lines:
            axes.plot(
                line.x,
                line.y,
                color=line.style.colour,
                linestyle=_line_style(line.style),
                marker="o" if np.size(line.x) <= _MAX_MARKERS else "",
            )
        if x.is_log:
            axes.set_xscale("log", nonpositive="mask")
        if y.is_log:
            axes.set_yscale("log", nonpositive="mask")
        if y.kind == "share":
            axes.set_ylim(bottom=0)
        # Above the axis, where it can be read and takes no width.
        axes.set_title(y.title)
        axes.set_xlabel(x.title)
        _show_ticks(axes.xaxis, x)
        _show_ticks(axes.yaxis, y)
        legend = tuple((line.name, line.style) for line in lines) if len(lines) > 1 else ()
        return Chart(title, _to_svg(figure), legend, note)


def draw_columns(title: str, shares: Sequence[tuple[str, float]], x_title: str) -> Chart:
    """Upright bars of shares, each with its number above it."""
    with mpl.rc_context(_STYLE):
        figure, axes = _new_figure(_HEIGHT)
        heights = [share for _, share in shares]
        bars = axes.bar([name for name, _ in shares], heights, color=_COLOURS[0], width=0.6)
        axes.bar_label(bars, [format_share(share) for share in heights], padding=2)
        axes.margins(y=0.12)
        axes.grid(False, axis="x")
        axes.set_xlabel(x_title)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_share(value)))
        return Chart(title, _to_svg(figure))


def draw_bars(title: str, bars: Sequence[tuple[str, float]], show: Format) -> Chart:
    """Bars that lie, each below its name and its number."""
    with mpl.rc_context(_STYLE):
        figure, axes = _new_figure(_BAR_HEIGHT * len(bars))
        axes.barh(range(len(bars)), [value for _, value in bars], height=0.3, color=_COLOURS[0])
        for place, (name, value) in enumerate(bars):
            axes.text(0, place - 0.24, f"{_shortened(name)}:  {show(value)}", va="bottom")
        axes.set_xlim(0, max(value for _, value in bars) or 1)
        axes.set_ylim(len(bars) - 0.75, -0.75)
        axes.set_axis_off()
        return Chart(title, _to_svg(figure))


def format_number(value: float) -> str:
    """1234 becomes '1.23k'."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def format_share(value: float) -> str:
    """0.1234 becomes '12.3%'."""
    return f"{100 * value:.3g}%"


def format_seconds(value: float) -> str:
    """5400 becomes '1.5 h'."""
    for unit, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"


_FORMATS = {"share": format_share, "log": format_number, "log seconds": format_seconds}


def log_ticks(low: float, high: float, kind: str) -> list[float]:
    """Round numbers for a logarithmic axis, at most seven, none where its ends are too close.

    Args:
      low: the lower end, above 0.
      high: the upper end.
      kind: of the scale; of `log seconds` a minute and an hour are round numbers.
    """
    most: list[float] = []
    for candidates in _TIMES if kind == "log seconds" else _decimals():
        ticks = [tick for tick in candidates if low <= tick <= high]
        if len(most) < len(ticks) <= _MAX_TICKS:
            most = ticks
    return most


def _decimals() -> Iterator[list[float]]:
    powers = [10.0**power for power in range(-12, 19)]
    for distance in (4, 3, 2):
        yield powers[::distance]
    for mantissas in _MANTISSAS:
        yield [power * mantissa for power, mantissa in itertools.product(powers, mantissas)]


def _show_ticks(axis: Axis, scale: Scale) -> None:
    """Puts ticks where a reader expects them, with short labels."""
    locator: Locator = MaxNLocator(9 if scale.kind == "whole" else 6, integer=scale.kind == "whole")
    formatter: Formatter = ScalarFormatter(useOffset=False)
    ticks = log_ticks(*axis.get_view_interval(), scale.kind) if scale.is_log else []
    # On a logarithmic axis whose ends are close together the ticks of a linear one do.
    if len(ticks) > 1:
        locator = FixedLocator(ticks)
    if scale.kind in _FORMATS and (len(ticks) > 1 or scale.kind != "log"):
        show = _FORMATS[scale.kind]
        formatter = FuncFormatter(lambda value, _: show(value))
    axis.set_minor_locator(NullLocator())
    axis.set_major_locator(locator)
    axis.set_major_formatter(formatter)


def _new_figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _line_style(style: Style) -> str | tuple[int, list[float]]:
    if not style.dashes:
        return "solid"
    return 0, [float(part) for part in style.dashes.split()]


def _shortened(name: str) -> str:
    """A name that may be too long for a chart, without its middle."""
    if len(name) <= _NAME_CHARACTERS:
        return name
    half = _NAME_CHARACTERS // 2
    return f"{name[: half - 1]}…{name[-half:]}"


def _to_svg(figure: Figure) -> str:
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # A page has many charts: ids of groups would repeat, and a style would hold for everything.
    # (Those of marks and clips are made from what they stand for, so they may repeat.)
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # The page decides on the size.
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
