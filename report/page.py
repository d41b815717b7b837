"""A page of sections as one HTML file that needs nothing else: no scripts, no other files."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from corpusmill.report.charts import Chart, Style

# On a narrow screen tables become lists of cards, so that nothing has to be scrolled sideways.
_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 92rem; padding: 1rem; background: #fff; color: #1c2127;
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0.4rem 0; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 0.4rem; padding-top: 0.8rem;
  border-top: 1px solid #d5d9de; }
p { max-width: 46rem; margin: 0.4rem 0 1rem; }
.charts { display: grid; gap: 1.6rem 2rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figure h3 { font-size: 1rem; margin: 0 0 0.3rem; }
figure > svg { display: block; width: 100%; height: auto; }
figcaption, .legend { font-size: 0.875rem; color: #4b535d; }
.legend { list-style: none; margin: 0.2rem 0 0; padding: 0; display: flex; flex-wrap: wrap;
  gap: 0.1rem 1rem; }
.legend li { display: flex; align-items: center; gap: 0.4rem; }
.legend svg { flex: none; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.9375rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.8rem 0.3rem 0; vertical-align: top; text-align: left; }
thead th { color: #4b535d; font-weight: 600; border-bottom: 1px solid #aab1ba; }
tbody tr { border-bottom: 1px solid #e8eaed; }
tbody th { font-weight: 600; }
.numbers th:not(:first-child), .numbers td { text-align: right; padding-left: 0.8rem; }
.numbers td { white-space: nowrap; }
.numbers thead th { overflow-wrap: normal; }
.scroller { overflow-x: auto; }
.numbers tbody th { min-width: 6rem; }
details { margin: 0.4rem 0; }
summary { cursor: pointer; }
.facts th { font-weight: 400; color: #4b535d; min-width: 7rem; }
@media (max-width: 60rem) {
  .numbers thead { display: none; }
  .numbers, .numbers tbody, .numbers tr, .numbers th, .numbers td { display: block; }
  .numbers tr { padding: 0.4rem 0; }
  .numbers td { display: flex; justify-content: space-between; gap: 1rem;
    padding: 0.1rem 0; white-space: normal; }
  .numbers td::before { content: attr(data-label); color: #4b535d; text-align: left; }
  .facts, .facts tbody, .facts tr, .facts th, .facts td { display: block; }
  .facts td { padding-top: 0; }
  .numbers tbody th::before { content: attr(data-label) " "; font-weight: 400; }
}
"""


@dataclass(frozen=True)
class Table:
    """A table of numbers; the first cell of a row says what it is about."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Facts:
    """Names with values, folded under a title."""

    title: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    facts: Sequence[Facts] = field(default=())


def render(title: str, sections: Sequence[Section]) -> str:
    """The page as the text of an HTML file."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>",
            f"<h1>{html.escape(title)}</h1>",
            *(line for section in sections for line in _section(section)),
            "</body>\n</html>\n",
        ]
    )


def _section(section: Section) -> Iterator[str]:
    yield f"<section>\n<h2>{html.escape(section.title)}</h2>"
    if section.text:
        yield f"<p>{html.escape(section.text)}</p>"
    yield from map(_table, section.tables)
    if section.charts:
        yield '<div class="charts">'
        yield from map(_figure, section.charts)
        yield "</div>"
    yield from map(_facts, section.facts)
    yield "</section>"


def _figure(chart: Chart) -> str:
    title = html.escape(chart.title)
    svg = chart.svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    parts = [f"<figure>\n<h3>{title}</h3>", svg]
    if chart.legend:
        items = [f"<li>{_swatch(style)}{html.escape(name)}</li>" for name, style in chart.legend]
        parts.append(f'<ul class="legend">{"".join(items)}</ul>')
    if chart.note:
        parts.append(f"<figcaption>{html.escape(chart.note)}</figcaption>")
    return "\n".join([*parts, "</figure>"])


def _swatch(style: Style) -> str:
    return (
        f'<svg width="24" height="4" aria-hidden="true"><path d="M0 2H24" stroke-width="3"'
        f' stroke="{style.colour}" stroke-dasharray="{style.dashes or "none"}"/></svg>'
    )


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.header)
    rows = []
    for first, *cells in table.rows:
        columns = zip(table.header[1:], cells, strict=True)
        values = "".join(
            f'<td data-label="{html.escape(name)}">{html.escape(cell)}</td>'
            for name, cell in columns
        )
        label = html.escape(table.header[0])
        first = html.escape(first)
        rows.append(f'<tr><th scope="row" data-label="{label}">{first}</th>{values}</tr>')
    start = (
        f'<div class="scroller"><table class="numbers"><thead><tr>{header}</tr></thead>\n<tbody>'
    )
    return "\n".join([start, *rows, "</tbody></table></div>"])


def _facts(facts: Facts) -> str:
    rows = [
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'
        for name, value in facts.values.items()
    ]
    start = f"<details><summary>{html.escape(facts.title)}</summary>"
    return "\n".join([start, '<table class="facts"><tbody>', *rows, "</tbody></table></details>"])
