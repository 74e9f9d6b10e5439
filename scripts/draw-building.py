#!/usr/bin/env python3
"""Draws a week of a simulated building from the database: weather, a zone, its air handler, power.

    eval "$(target/release/haystack env | sed 's/^/export /')"
    python3 scripts/draw-building.py SIMULATOR FROM OUT.png     # e.g. 2 2026-07-06 docs/building-week.png

Needs psql and matplotlib (pip install matplotlib).
"""

import csv
import datetime
import io
import os
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as dates
import matplotlib.pyplot as plt

ZONE, AHU = "floor-2.south.vav", "ahu-2"
POINTS = {
    "outside": "weather.outside-air-temp",
    "humidity": "weather.outside-air-humidity",
    "solar": "weather.solar-irradiance",
    "zone": f"{ZONE}.zone-air-temp",
    "heating": f"{ZONE}.zone-heating-sp",
    "cooling": f"{ZONE}.zone-cooling-sp",
    "flow": f"{ZONE}.discharge-air-flow",
    "supply": f"{AHU}.discharge-air-temp",
    "mixed": f"{AHU}.mixed-air-temp",
    "valve": f"{AHU}.cooling-valve-cmd",
    "fan": f"{AHU}.fan-speed-cmd",
    "main": "meter-main.power",
    "hvac": "meter-hvac.power",
    "lighting": "meter-lighting.power",
    "plugs": "meter-plugs.power",
}


def read(simulator, begin, end):
    """Readings of each point: moments and numbers."""
    names = ",".join(f"'{key}'" for key in POINTS.values())
    sql = f"""copy (select p.key, v.ts at time zone 'UTC', v.value_n
        from core.poller_entity p join core.values_demo v using (entity_id)
        where p.poller_id = {int(simulator)} and p.key in ({names}) and v.ts > '{begin}'
          and v.ts <= '{end}' order by v.ts) to stdout csv"""
    out = subprocess.run(
        ["psql", os.environ["HAYSTACK_PRIMARY_URL"], "-qAtc", sql],
        check=True, capture_output=True, text=True,
    ).stdout
    series = {key: ([], []) for key in POINTS.values()}
    for key, ts, value in csv.reader(io.StringIO(out)):
        if value:
            series[key][0].append(datetime.datetime.fromisoformat(ts))
            series[key][1].append(float(value))
    missing = [key for key, (moments, _) in series.items() if not moments]
    if missing:
        sys.exit(f"no readings of {', '.join(missing)} from {begin} on")
    return {name: series[key] for name, key in POINTS.items()}


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    simulator, day, out = sys.argv[1:]
    begin = datetime.date.fromisoformat(day)
    week = read(simulator, begin, begin + datetime.timedelta(days=7))
    figure, axes = plt.subplots(4, 1, figsize=(11, 11), sharex=True, constrained_layout=True)

    def draw(axis, name, label, **style):
        axis.plot(*week[name], label=label, linewidth=1.1, **style)

    weather, zone, ahu, power = axes
    weather.set(title="Weather", ylabel="°C")
    draw(weather, "outside", "outside air, °C", color="tab:blue")
    right = weather.twinx()
    right.set(ylabel="W/m², %")
    draw(right, "solar", "solar, W/m²", color="tab:orange", alpha=0.8)
    draw(right, "humidity", "humidity, %", color="tab:green", alpha=0.6)
    zone.set(title=f"Zone ({ZONE})", ylabel="°C")
    draw(zone, "zone", "zone air, °C", color="tab:red")
    draw(zone, "heating", "heating setpoint, °C", color="gray", linestyle=":")
    draw(zone, "cooling", "cooling setpoint, °C", color="gray", linestyle="--")
    flow = zone.twinx()
    flow.set(ylabel="L/s")
    draw(flow, "flow", "supply air, L/s", color="tab:cyan", alpha=0.7)
    ahu.set(title=f"Air handler ({AHU})", ylabel="°C")
    draw(ahu, "supply", "discharge air, °C", color="tab:blue")
    draw(ahu, "mixed", "mixed air, °C", color="tab:purple", alpha=0.7)
    share = ahu.twinx()
    share.set(ylabel="%", ylim=(0, 105))
    draw(share, "fan", "fan speed, %", color="tab:gray", alpha=0.7)
    draw(share, "valve", "cooling valve, %", color="tab:cyan", alpha=0.7)
    power.set(title="Electric power", ylabel="kW")
    for name, label in [("main", "main meter"), ("hvac", "HVAC"), ("lighting", "lighting"),
                        ("plugs", "plugs")]:
        draw(power, name, f"{label}, kW")
    for axis, other in [(weather, right), (zone, flow), (ahu, share), (power, None)]:
        lines = axis.get_lines() + (other.get_lines() if other else [])
        axis.legend(lines, [line.get_label() for line in lines], loc="upper right", ncols=4,
                    fontsize=8)
        axis.grid(alpha=0.3)
    power.xaxis.set_major_locator(dates.DayLocator())
    power.xaxis.set_major_formatter(dates.DateFormatter("%a %d %b"))
    power.set_xlabel("UTC")
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    main()
