#!/usr/bin/env python3
"""start-picture.py TITLE=TRACE.json… : draws where the time of starts has gone, from what `martlet run --trace` wrote, as SVG on
standard output. Each trace is a panel, all with one scale of time; each process has its rows, and a span below another lies in it."""
import html
import json
import sys

WIDTH, LEFT, ROW, RIGHT = 1000, 150, 20, 16
ORDER = ["martlet", "martlet-server", "martlet-vmm", "qemu", "martlet-agent"]
CLASSES = {"martlet": "command", "martlet-server": "server", "martlet-vmm": "machine", "qemu": "machine", "martlet-agent": "agent"}


def read(path):
    """The spans of a trace: process, name, begin and end in ms, depth among those of its process."""
    events = json.load(open(path))
    events = events["traceEvents"] if isinstance(events, dict) else events
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    spans = sorted(
        ({"process": names[e["pid"]].split(" (")[0], "name": e["name"], "begin": e["ts"] / 1000, "end": (e["ts"] + e["dur"]) / 1000}
         for e in events if e["ph"] == "X"),
        key=lambda s: (s["begin"], s["begin"] - s["end"]))
    first = min(s["begin"] for s in spans)
    # The life of the container's process is no part of its start, nor is what comes after it.
    running = [s for s in spans if s["name"] == "container"]
    last = min((s["begin"] for s in running), default=max(s["end"] for s in spans))
    spans = [s for s in spans if s["name"] != "container" and s["begin"] < last]
    rows = {}
    for span in spans:
        span["begin"], span["end"] = span["begin"] - first, min(span["end"], last) - first
        ends = rows.setdefault(span["process"], [])
        span["row"] = next((i for i, end in enumerate(ends) if end <= span["begin"] + 0.001), len(ends))
        ends[span["row"]:span["row"] + 1] = [span["end"]]
    return spans, last - first


def rank(process):
    return next((i for i, name in enumerate(ORDER) if process == name), len(ORDER))


def draw(panels):
    longest = max(total for _, _, total in panels)
    scale = (WIDTH - LEFT - RIGHT) / longest
    body, y = [], 12
    for title, spans, total in panels:
        y += 18
        body.append(f'<text class="title" x="8" y="{y}">{html.escape(title)}: {total:.0f} ms</text>')
        y += 8
        for process in sorted({s["process"] for s in spans}, key=rank):
            own = [s for s in spans if s["process"] == process]
            rows = max(s["row"] for s in own) + 1
            body.append(f'<text class="label" x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{html.escape(process)}</text>')
            for span in own:
                x, width = LEFT + span["begin"] * scale, max(1, (span["end"] - span["begin"]) * scale)
                text = f'{span["name"]} {span["end"] - span["begin"]:.1f} ms'
                top = y + span["row"] * ROW
                body.append(f'<rect class="{CLASSES.get(process, "other")}" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 3}" rx="2">'
                            f'<title>{html.escape(text)}</title></rect>')
                # A letter is about 6.2 wide.
                fits = [t for t in (text, span["name"]) if len(t) * 6.2 + 8 < width]
                if fits:
                    body.append(f'<text class="span" x="{x + 4:.1f}" y="{top + 13}">{html.escape(fits[0])}</text>')
            y += rows * ROW + 4
        y += 8
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if longest / s <= 12)
    axis = []
    for index in range(int(longest / step) + 1):
        x = LEFT + index * step * scale
        axis.append(f'<line class="grid" x1="{x:.1f}" y1="12" x2="{x:.1f}" y2="{y}"/>')
        axis.append(f'<text class="label" x="{x:.1f}" y="{y + 14}" text-anchor="middle">{index * step}</text>')
    axis.append(f'<text class="label" x="{LEFT - 8}" y="{y + 14}" text-anchor="end">ms</text>')
    style = """
        svg { background: #fff; font: 11px sans-serif } text { fill: #222 } .title { font-size: 13px; font-weight: bold }
        .grid { stroke: #ddd } .command { fill: #b9c7d8 } .server { fill: #a8d5c2 } .machine { fill: #f2c28b } .agent { fill: #d4b6dd }
        .other { fill: #ccc } rect { stroke: #fff; stroke-width: 0.5 }"""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 24}" width="{WIDTH}" height="{y + 24}">\n'
            f'<style>{style}\n</style>\n' + "\n".join(axis + body) + "\n</svg>\n")


def main():
    if len(sys.argv) < 2 or any("=" not in word for word in sys.argv[1:]):
        sys.exit(__doc__)
    panels = []
    for word in sys.argv[1:]:
        title, path = word.split("=", 1)
        panels.append((title, *read(path)))
    sys.stdout.write(draw(panels))


main()
