"""The roofline picture of a profile (Williams, Waterman, Patterson 2009). Needs matplotlib."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wiesel.report import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from wiesel.profile import Profile, ProfiledStep

_INK, _FAINT, _GRID = "#1f2733", "#6b7480", "#e6e9ee"
_COLOURS = ("#2f6fde", "#e0663c", "#3a9a5b", "#9a57c9", "#d6a01d", "#1fa3b5")
_OTHERS = "#9aa3af"
_LARGEST = 600.0
"""Area of the slowest step's dot, in square points."""
_SPOTS = tuple((away, angle) for away in (0, 11, 24, 40, 58, 78) for angle in (0, 180, 35, -35, 145, -145, 65, -65, 115, -115))
"""Where a name may stand beside its dot: how many points away, in which direction; the first that is free is taken."""


def draw_roofline(profile: Profile, path: str | os.PathLike[str], *, labels: int) -> None:
    """See ``Profile.roofline``."""
    figure = new_figure(10.0, 6.2)
    axes = figure.add_subplot()
    shown = [row for row in profile.rows if row.flops and row.nbytes and row.seconds > 0]
    if not shown:
        raise ValueError("roofline: no step of this profile does arithmetic")
    shown.sort(key=lambda row: -row.seconds)
    on = profile.machine
    intensities = [row.flops / row.nbytes for row in shown]
    left, right = min(*intensities, on.ridge / 4) / 1.6, max(*intensities, on.ridge * 4) * 1.6
    bottom = max(min(row.flop_rate for row in shown), on.flops / 1e5) / 2e9
    top = max(on.flops, *(row.flop_rate for row in shown)) * 2.2 / 1e9

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    _draw_roofs(axes, profile, left, right)

    colours: dict[str, str] = {}
    for group in profile.by("opcode").rows:
        if any(row.opcode == group.name for row in shown):
            colours[group.name] = _COLOURS[len(colours)] if len(colours) < len(_COLOURS) else _OTHERS
    sizes = [max(_LARGEST * row.seconds / shown[0].seconds, 10.0) for row in shown]
    axes.scatter(
        intensities,
        [max(row.flop_rate / 1e9, bottom * 1.05) for row in shown],
        s=sizes,
        c=[colours[row.opcode] for row in shown],
        alpha=0.75,
        edgecolors="white",
        linewidths=0.8,
        zorder=3,
    )
    _draw_legend(axes, colours)

    drawn = sum(row.seconds for row in shown)
    axes.set_xlabel("operations per byte of the operands", color=_FAINT, fontsize=9.5)
    axes.set_ylabel("GFLOP/s by the direct formula", color=_FAINT, fontsize=9.5)
    axes.set_title(
        f"Batch {profile.batch}, {profile.total * 1e3:.2f} ms in {len(profile.rows)} steps; a dot's area is its time. "
        f"Steps without arithmetic, {1 - drawn / profile.total:.0%} of the time, are not shown.",
        loc="left", color=_FAINT, fontsize=9.5, pad=10,
    )  # fmt: skip
    axes.grid(which="major", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=_FAINT, labelsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#c5cbd5")
    figure.draw_without_rendering()  # from here on places are known in pixels
    _along(axes, on.bandwidth / 1e9, left, on.ridge, f"memory {on.bandwidth / 1e9:.1f} GB/s", _INK)
    _along(axes, on.levels[0][1] / 1e9, left, on.flops / on.levels[0][1], f"cache {on.levels[0][1] / 1e9:.0f} GB/s", _FAINT)
    _draw_labels(axes, profile, shown, sizes, labels, colours)
    figure.savefig(path, dpi=160)


def _draw_roofs(axes: Axes, profile: Profile, left: float, right: float) -> None:
    on = profile.machine
    peak = on.flops / 1e9
    axes.plot([left, on.ridge, right], [left * on.bandwidth / 1e9, peak, peak], color=_INK, linewidth=1.8, zorder=2)
    cache = on.levels[0][1]
    corner = on.flops / cache
    if corner > left:
        axes.plot([left, corner], [left * cache / 1e9, peak], color=_FAINT, linewidth=1.1, linestyle=(0, (4, 3)), zorder=2)
    threads = f"{on.threads} thread{'s' * (on.threads > 1)}"
    axes.annotate(
        f"{peak:.0f} GFLOP/s: multiply-adds, {on.isa}, {threads}", (right, peak), xytext=(-4, 5), textcoords="offset points",
        ha="right", color=_INK, fontsize=9,
    )  # fmt: skip


def _along(axes: Axes, rate: float, left: float, corner: float, text: str, colour: str) -> None:
    """Writes on a slanting roof, where it is inside the picture."""
    low = max(left, axes.get_ylim()[0] / rate)
    if corner <= low * 1.5:
        return
    x = low * (corner / low) ** 0.08
    (x0, y0), (x1, y1) = axes.transData.transform([(low, low * rate), (corner, corner * rate)])
    axes.annotate(
        text, (x, x * rate), xytext=(0, 4), textcoords="offset points", ha="left", va="bottom", color=colour, fontsize=9,
        rotation=math.degrees(math.atan2(y1 - y0, x1 - x0)), rotation_mode="anchor",
    )  # fmt: skip


def _draw_legend(axes: Axes, colours: dict[str, str]) -> None:
    named = {name: colour for name, colour in colours.items() if colour != _OTHERS}
    handles = [axes.plot([], [], marker="o", linestyle="", color=colour, markersize=7, label=name)[0] for name, colour in named.items()]
    if len(named) < len(colours):
        handles.append(axes.plot([], [], marker="o", linestyle="", color=_OTHERS, markersize=7, label="others")[0])
    legend = axes.legend(handles=handles, loc="lower right", frameon=True, fontsize=9, labelcolor=_INK, handletextpad=0.2)
    legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.9)


def _draw_labels(
    axes: Axes, profile: Profile, shown: Sequence[ProfiledStep], sizes: Sequence[float], count: int, colours: dict[str, str]
) -> None:
    """Names beside the first ``count`` dots, each where it meets no dot and no other name; one that finds no place is left out."""
    points = axes.figure.dpi / 72
    frame = axes.get_window_extent()
    places = [axes.transData.transform((row.flops / row.nbytes, row.flop_rate / 1e9)) for row in shown]
    radii = [math.sqrt(size / math.pi) for size in sizes]
    reach = [radius * 0.8 * points for radius in radii]
    taken = [(px - r, py - r, px + r, py + r) for (px, py), r in zip(places, reach, strict=True)]
    for r in range(int(frame.x0), int(frame.x1), 8):  # nor a roof
        x = axes.transData.inverted().transform((r, 0))[0]
        y = axes.transData.transform((x, min(x * profile.machine.bandwidth, profile.machine.flops) / 1e9))[1]
        taken.append((r, y - 3 * points, r + 8, y + 3 * points))
    taken.append((frame.x0 + 0.6 * frame.width, taken[-1][1], frame.x1, taken[-1][3] + 14 * points))
    for row, (px, py), radius in list(zip(shown, places, radii, strict=True))[:count]:
        text = f"{row.opcode} {row.path}".strip() + f"  {row.seconds / profile.total:.0%}"
        width, height = 4.7 * len(text) * points, 11 * points
        for away, angle in _SPOTS:
            dx, dy = ((radius + 4 + away) * turn(math.radians(angle)) for turn in (math.cos, math.sin))
            x0 = px + dx * points - (width if dx < 0 else 0)
            box = (x0, py + dy * points - height / 2, x0 + width, py + dy * points + height / 2)
            inside = box[0] >= frame.x0 and box[2] <= frame.x1 and box[1] >= frame.y0 and box[3] <= frame.y1
            if inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
                taken.append(box)
                leader = {"arrowstyle": "-", "color": colours[row.opcode], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
                axes.annotate(
                    text, (row.flops / row.nbytes, row.flop_rate / 1e9), xytext=(dx, dy), textcoords="offset points",
                    ha="right" if dx < 0 else "left", va="center", color=_INK, fontsize=8, zorder=4, arrowprops=leader if away else None,
                )  # fmt: skip
                break
