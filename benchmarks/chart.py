"""The chart of the results: a panel for each measurement, a bar for each contender."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from treehub_level.extras import missing

from .plan import Comparison, Contender
from .report import Results, title
from .runner import Result, ratio

#: The file formats of a chart, by suffix.
KINDS = (".svg", ".png")

# The palette of Okabe and Ito, which is safe for colour-blind readers.
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
_MAX_RATIO = 2.0


class NoMatplotlibError(Exception):
    """Matplotlib is not installed."""


def check_matplotlib() -> None:
    """Check that matplotlib is installed, before the benchmarks run.

    Raises:
        NoMatplotlibError: Matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise NoMatplotlibError(missing("--plot", "matplotlib", "bench")) from error


def draw(results: Results, path: Path, *, records: int, repeat: int) -> None:
    """Write the chart. It has a panel for each comparison with a target relative to a peer.

    Args:
        results: The results of all comparisons.
        path: The file; its suffix is one of `KINDS`.
        records: The number of records per run.
        repeat: The number of runs of each contender.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    panels = [(comparison, _measured(rows)) for comparison, rows in results if _has_target(comparison)]
    panels = [(comparison, rows) for comparison, rows in panels if len(rows) > 1]
    grid_rows = [panels[at : at + _COLUMNS] for at in range(0, len(panels), _COLUMNS)]
    bars = [max(len(rows) for _, rows in grid_row) for grid_row in grid_rows] or [1]
    height = 1.3 + sum(bars) * _INCHES_EACH_BAR + len(bars) * _INCHES_EACH_PANEL
    # Equal results give equal files, and text stays text (not outlines).
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "treehub-level", "font.family": "sans-serif"}):
        figure = Figure(figsize=(_INCHES_WIDE, height), layout="constrained", facecolor="white")
        grid = figure.subplots(len(bars), _COLUMNS, squeeze=False, height_ratios=[count + 1 for count in bars])
        for axes in grid.flat:
            axes.set_axis_off()
        for grid_row, axes_row in zip(grid_rows, grid, strict=False):
            for (comparison, rows), axes in zip(grid_row, axes_row, strict=False):
                _draw_panel(axes, comparison.measurement, rows, max(len(rows) for _, rows in grid_row))
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
    """Return the contenders that ran; none if the first one did not, as all ratios relate to it."""
    return [row for row in rows if row.rate is not None] if rows[0].rate is not None else []


def _draw_panel(axes: Any, name: str, rows: list[Result], places: int) -> None:
    axes.set_axis_on()
    axes.set_title(name, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlim(0, _MAX_RATIO * 1.35)
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
        length = min(faster, _MAX_RATIO)
        axes.barh(place, length, height=0.72, color=_colour(row.contender))
        note = "" if place == 0 else f" ({faster:.2g} ×{', bar cut' if faster > length else ''})"
        background = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        text = f"{row.rate:,.0f}{note}"
        axes.text(length + 0.025, place, text, va="center", fontsize=8, bbox=background)


def _colour(contender: Contender) -> str:
    if contender.peer is not None:
        return _CEILING if contender.peer == "ceiling" else _NODE
    return {"c": _OURS, "python": _PURE}.get(contender.core, _PLYVEL)
