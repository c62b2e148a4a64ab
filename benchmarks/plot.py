"""The plot, as an SVG that needs nothing and follows the reader's light or dark mode."""

from collections.abc import Callable, Mapping, Sequence

COLORS = {
    "VECTR0": "#2563eb",
    "VECTR0, 2 workers": "#60a5fa",
    "nchan": "#d97706",
    "textbook": "#dc2626",
    "floor": "#6b7280",
}
DASHES = {"VECTR0, 2 workers": "6 3", "floor": "2 3"}
WIDTH, HEIGHT = 460, 320
LEFT, TOP, RIGHT, BOTTOM = 56, 48, 16, 48

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #374151 }
.title { font-size: 14px; font-weight: 600 }
.grid { stroke: #e5e7eb } .axis { stroke: #9ca3af }
@media (prefers-color-scheme: dark) {
  text { fill: #d1d5db } .grid { stroke: #374151 } .axis { stroke: #6b7280 }
}
"""

Points = Sequence[tuple[float, float]]


def plot(latency: dict[str, list[float]], cost: dict[str, list[tuple[int, float]]], streams: int) -> str:
    """Draw who has heard by when, and what a delivery costs as the streams grow."""
    reached = {name: [(ms / 1000, percent) for percent, ms in enumerate(values)] for name, values in latency.items()}
    # The textbook's seconds would squeeze all others into a corner; its line leaves at the right.
    slowest = max(values[100] for name, values in latency.items() if name != "textbook" or len(latency) == 1) / 1000
    left = _chart(
        f"Streams reached, % of {streams:,}", "ms after POST", reached, _ticks(slowest * 1.25), [0, 25, 50, 75, 100]
    )
    highest = max(value for points in cost.values() for _, value in points)
    right = _chart(
        "CPU per delivery, µs", "open streams", cost, _ticks(streams * 1.0), _ticks(highest * 1.05), mark_points=True
    )
    legend = "".join(
        f'<g transform="translate({20 + 175 * i},0)"><line x1="0" x2="22" y1="-4" y2="-4" {_stroke(name)}/>'
        f'<text x="28">{name}</text></g>'
        for i, name in enumerate(latency)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT + 32}" role="img" '
        f'aria-label="Latency distribution and CPU per delivery of VECTR0 and others">'
        f"<style>{STYLE}</style>{left}"
        f'<g transform="translate({WIDTH},0)">{right}</g>'
        f'<g transform="translate(0,{HEIGHT + 16})">{legend}</g></svg>\n'
    )


def _chart(
    title: str,
    unit: str,
    lines: Mapping[str, Points],
    x_ticks: list[float],
    y_ticks: list[float],
    *,
    mark_points: bool = False,
) -> str:
    x = _scale(0, x_ticks[-1], LEFT, WIDTH - RIGHT)
    y = _scale(0, y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [f'<text class="title" x="{LEFT}" y="24">{title}</text>']
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts += [
        f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:,g}</text>' for tick in x_ticks
    ]
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 10}" text-anchor="end">{unit}</text>')
    for name, points in lines.items():
        inside = [(px, py) for px, py in points if px <= x_ticks[-1]]
        path = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in inside)
        parts.append(f'<polyline points="{path}" fill="none" {_stroke(name)}/>')
        if mark_points:
            parts += [f'<circle cx="{x(px):.1f}" cy="{y(py):.1f}" r="3" fill="{_color(name)}"/>' for px, py in inside]
    return "".join(parts)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(high: float) -> list[float]:
    """Give four to eight round numbers from 0 to at least high."""
    step = 10.0 ** (len(str(int(high))) - 1)
    for divisor in (1, 2, 5, 10):
        if high / (step / divisor) >= 4:
            step /= divisor
            break
    ticks = [0.0]
    while ticks[-1] < high:
        ticks.append(ticks[-1] + step)
    return ticks


def _color(name: str) -> str:
    return COLORS.get(name, "#000000")


def _stroke(name: str) -> str:
    dash = f' stroke-dasharray="{DASHES[name]}"' if name in DASHES else ""
    return f'stroke="{_color(name)}" stroke-width="2"{dash}'
