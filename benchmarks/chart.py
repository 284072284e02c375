"""The results as a chart: a panel for each measurement, a bar for each contender, as long as it is fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .plan import Comparison, Contender
from .report import Results, title
from .runner import Result, ratio

#: What a chart can be written as.
KINDS = (".svg", ".png")

# Okabe and Ito's colours, which people with any vision can tell apart.
_OURS, _PURE, _PLYVEL, _CEILING, _NODE = "#0072B2", "#56B4E9", "#E69F00", "#999999", "#009E73"
_LEGEND = {
    "treehub-level, core=c": _OURS,
    "treehub-level, core=python": _PURE,
    "plyvel alone": _PLYVEL,
    "C program on LevelDB": _CEILING,
    "Node": _NODE,
}
_COLUMNS = 2
_INCHES_WIDE = 13
_INCHES_EACH_BAR = 0.25
_INCHES_EACH_PANEL = 0.55
#: Bars end where a contender is so many times as fast as the first one. (A scan in C is beyond any
#: scale.)
_LONGEST = 2.0


class NoMatplotlibError(Exception):
    """There is nothing to draw with."""


def check_matplotlib() -> None:
    """Find out before anything is measured.

    Raises:
        NoMatplotlibError: It is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise NoMatplotlibError("--plot takes matplotlib, which is not installed: pip install matplotlib") from error


def draw(results: Results, path: Path, *, records: int, repeat: int) -> None:
    """Write the chart of those comparisons in which there is a target against a peer.

    Args:
        results: What was measured.
        path: The file; its suffix is one of `KINDS`.
        records: Records of each run.
        repeat: Runs of each contender.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    panels = [(comparison, _measured(rows)) for comparison, rows in results if _has_target(comparison)]
    panels = [(comparison, rows) for comparison, rows in panels if len(rows) > 1]
    lines = [panels[at : at + _COLUMNS] for at in range(0, len(panels), _COLUMNS)]
    bars = [max(len(rows) for _, rows in line) for line in lines] or [1]
    height = 1.3 + sum(bars) * _INCHES_EACH_BAR + len(bars) * _INCHES_EACH_PANEL
    # The file is the same for the same results, and its text is text.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "treehub-level", "font.family": "sans-serif"}):
        figure = Figure(figsize=(_INCHES_WIDE, height), layout="constrained", facecolor="white")
        grid = figure.subplots(len(bars), _COLUMNS, squeeze=False, height_ratios=[count + 1 for count in bars])
        for axes in grid.flat:
            axes.set_axis_off()
        for line, row in zip(lines, grid, strict=False):
            for (comparison, rows), axes in zip(line, row, strict=False):
                _draw_panel(axes, comparison.measurement, rows, max(len(rows) for _, rows in line))
        figure.suptitle(
            "Records per second: longer is faster; in parentheses, relative to the first row of each panel\n"
            + title(records, repeat),
            fontsize=11,
        )
        figure.legend(
            handles=[Patch(color=colour, label=label) for label, colour in _LEGEND.items()],
            loc="outside lower center",
            ncols=len(_LEGEND),
            frameon=False,
        )
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def _has_target(comparison: Comparison) -> bool:
    return any(contender.target is not None for contender in comparison.contenders)


def _measured(rows: list[Result]) -> list[Result]:
    """The contenders that ran; none if the first did not, which the others are compared with."""
    return [row for row in rows if row.rate is not None] if rows[0].rate is not None else []


def _draw_panel(axes: Any, name: str, rows: list[Result], places: int) -> None:
    axes.set_axis_on()
    axes.set_title(name, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlim(0, _LONGEST * 1.35)
    axes.set_ylim(places - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [row.contender.label for row in rows], fontsize=8.5)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_bounds(-0.5, len(rows) - 0.5)
    axes.axvline(1, ymin=1 - len(rows) / places, color="#555555", linewidth=0.8, linestyle=":", zorder=0)
    for place, row in enumerate(rows):
        faster = ratio(row, rows[0])
        assert faster is not None
        assert row.rate is not None
        length = min(faster, _LONGEST)
        axes.barh(place, length, height=0.72, color=_colour(row.contender))
        note = "" if place == 0 else f" ({faster:.2g} ×{', bar cut' if faster > length else ''})"
        background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        text = f"{row.rate:,.0f}{note}"
        axes.text(length + 0.025, place, text, va="center", fontsize=8, bbox=background)


def _colour(contender: Contender) -> str:
    if contender.peer is not None:
        return _CEILING if contender.peer == "ceiling" else _NODE
    return {"c": _OURS, "python": _PURE}.get(contender.core, _PLYVEL)
