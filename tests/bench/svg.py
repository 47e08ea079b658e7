"""Charts of benchmarks: SVG, written by hand."""

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 200, 50, 60
_COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#8d5a97", "#c98a1b", "#4a4e69", "#00798c")

Points = Sequence[tuple[float, float]]


def line_chart(
    title: str, x_label: str, y_label: str, lines: Mapping[str, Points], *, log_x: bool = False, log_y: bool = False
) -> str:
    """A line for each name; linear axes begin at 0."""
    points = [p for line in lines.values() for p in line]
    x = _Axis([p[0] for p in points], _LEFT, _WIDTH - _RIGHT, log_x)
    y = _Axis([p[1] for p in points], _HEIGHT - _BOTTOM, _TOP, log_y)
    parts = [*_frame(title, x_label, y_label, y)]
    for tick in x.ticks if not log_x else sorted({p[0] for p in points}):
        parts.append(_text(x.at(tick), _HEIGHT - _BOTTOM + 18, _short(tick), "middle"))
    for n, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[n % len(_COLOURS)]
        path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="3" fill="{colour}"/>' for a, b in line]
        parts += _legend(n, name, colour)
    return _document(parts)


def bar_chart(title: str, y_label: str, bars: Mapping[str, float]) -> str:
    """A bar for each name."""
    y = _Axis([0, *bars.values()], _HEIGHT - _BOTTOM, _TOP, log=False)
    parts = [*_frame(title, "", y_label, y)]
    step = (_WIDTH - _LEFT - _RIGHT) / max(1, len(bars))
    for n, (name, value) in enumerate(bars.items()):
        colour, left, top = _COLOURS[n % len(_COLOURS)], _LEFT + step * (n + 0.15), y.at(value)
        height = _HEIGHT - _BOTTOM - top
        parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{step * 0.7:.1f}" height="{height:.1f}" fill="{colour}"/>'
        )
        parts.append(_text(left + step * 0.35, top - 5, _short(value), "middle"))
        parts += _legend(n, name, colour)
    return _document(parts)


class _Axis:
    """Values to pixels."""

    def __init__(self, values: Sequence[float], start_px: float, end_px: float, log: bool) -> None:
        self._log, self._start_px, self._end_px = log, start_px, end_px
        if log:
            low = math.floor(math.log10(min(values, default=1)))
            high = max(low + 1, math.ceil(math.log10(max(values, default=10))))
            self.ticks = [10.0**n for n in range(low, high + 1)]
        else:
            step = _step(max(values, default=1) or 1)
            self.ticks = [n * step for n in range(math.ceil((max(values, default=1) or 1) / step) + 1)]

    def at(self, value: float) -> float:
        low, high, v = self.ticks[0], self.ticks[-1], value
        if self._log:
            low, high, v = math.log10(low), math.log10(high), math.log10(value)
        return self._start_px + (v - low) / (high - low) * (self._end_px - self._start_px)


def _step(highest: float) -> float:
    rough = highest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough)


def _frame(title: str, x_label: str, y_label: str, y: _Axis) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [_text(_LEFT, 28, title, "start", 16), _text((_LEFT + right) / 2, _HEIGHT - 16, x_label, "middle")]
    parts.append(_text(_LEFT, _TOP - 8, y_label, "middle"))
    for tick in y.ticks:
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y.at(tick):.1f}" y2="{y.at(tick):.1f}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 8, y.at(tick) + 4, _short(tick), "end"))
    parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="#333"/>')
    return parts


def _legend(number: int, name: str, colour: str) -> list[str]:
    top = _TOP + 22 * number
    left = _WIDTH - _RIGHT + 16
    return [
        f'<rect x="{left}" y="{top}" width="12" height="12" fill="{colour}"/>',
        _text(left + 18, top + 11, name, "start"),
    ]


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _short(value: float) -> str:
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return (
                f"{value / limit:g}{suffix}"
                if value / limit == round(value / limit, 1)
                else f"{value / limit:.1f}{suffix}"
            )
    return f"{value:g}" if value == round(value, 2) else f"{value:.2f}"


def _document(parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>', *parts, "</svg>", ""])
