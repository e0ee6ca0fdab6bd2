"""Draws docs/ergl.svg, the picture at the top of README.md: `python docs/make_picture.py`."""

import math
from pathlib import Path

INK, SOFT, BLUE, ORANGE = "#57606a", "#8c959f", "#1f6feb", "#d4731b"
BOXES = [
    ("log-mel", "clip, 64 bands"),
    ("encoder", "Cnn14 blocks"),
    ("n events", "tokens v(i, t)"),
    ("MEL", "an edge e(i, j) a pair"),
    ("gated GCN", "nodes and edges"),
    ("scene", "cross entropy"),
]
NODES = ["Speech", "Bell", "Rain", "Train", "Dog"]
WIDTH, TOP, BOX, GAP = 960, 40, 132, 33


def text(x: float, y: float, content: str, size: int, colour: str = INK, weight: int = 400) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" '
        f'fill="{colour}" text-anchor="middle">{content}</text>'
    )


def pipeline() -> list[str]:
    parts = []
    for index, (name, detail) in enumerate(BOXES):
        x = index * (BOX + GAP)
        parts.append(
            f'<rect x="{x + 1}" y="{TOP}" width="{BOX - 2}" height="58" rx="8" fill="none" '
            f'stroke="{BLUE}" stroke-width="2"/>'
        )
        parts.append(text(x + BOX / 2, TOP + 26, name, 17, BLUE, 600))
        parts.append(text(x + BOX / 2, TOP + 46, detail, 12))
        if index:
            parts.append(arrow(x - GAP + 3, TOP + 29, x - 5, TOP + 29, SOFT, 2))
    events = 2 * (BOX + GAP) + BOX / 2
    parts.append(arrow(events, TOP - 4, events, TOP - 22, ORANGE, 2))
    parts.append(text(events, TOP - 27, "pseudo-labels of a pretrained PANN: MSE", 12, ORANGE))
    return parts


def arrow(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}" marker-end="url(#tip)"/>'
    )


def graph() -> list[str]:
    """A small event graph: every ordered pair is an edge, some weigh more."""
    centre_x, centre_y, radius, parts = 560, 212, 78, []
    at = [
        (
            centre_x + 1.9 * radius * math.sin(2 * math.pi * k / len(NODES)),
            centre_y - radius * math.cos(2 * math.pi * k / len(NODES)),
        )
        for k in range(len(NODES))
    ]
    strong = {(0, 1), (1, 0), (3, 2), (4, 3)}
    for i, (xi, yi) in enumerate(at):
        for j, (xj, yj) in enumerate(at):
            if i == j:
                continue
            long = math.hypot(xi - xj, yi - yj)
            ux, uy = (xi - xj) / long, (yi - yj) / long
            side_x, side_y = -uy * 4, ux * 4  # i -> j and j -> i side by side
            colour, width = (ORANGE, 2.4) if (i, j) in strong else (SOFT, 0.8)
            parts.append(
                arrow(
                    xj + ux * 34 + side_x,
                    yj + uy * 24 + side_y,
                    xi - ux * 40 + side_x,
                    yi - uy * 28 + side_y,
                    colour,
                    width,
                )
            )
    for (x, y), name in zip(at, NODES, strict=True):
        parts.append(
            f'<ellipse cx="{x:.0f}" cy="{y:.0f}" rx="33" ry="19" fill="none" stroke="{BLUE}" '
            f'stroke-width="2"/>'
        )
        parts.append(text(x, y + 5, name, 14, BLUE, 600))
    parts.append(text(190, 190, "the event-relational graph:", 15, INK, 600))
    parts.append(text(190, 212, "node i is what event i sounds like here,", 13))
    parts.append(text(190, 232, "edge (i, j) is 64 numbers on how", 13))
    parts.append(text(190, 252, "event j bears on event i", 13))
    return parts


def main() -> None:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 0 {WIDTH + 8} 320" '
        'font-family="system-ui, sans-serif" role="img">',
        "<title>ERGL: log-mel, encoder, events, edges, gated graph convolution, scene</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{SOFT}"/></marker></defs>',
        *pipeline(),
        *graph(),
        "</svg>",
    ]
    Path(__file__).with_name("ergl.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
