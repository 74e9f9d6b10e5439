#!/usr/bin/env python3
"""Plays the demonstration gateways through the real broker, with mosquitto_pub.

    python3 scripts/play-gateways.py                 # as `haystack up` made them
    python3 scripts/play-gateways.py --drop 3        # leaves out part 3: `haystack transactions`

The hub LH-001-2024 reports its 50 beacons in one message. The gateway BLE-001-2024 reports 2,000 in
67 parts, shuffled, some of them twice. Needs only Python and mosquitto_pub.
"""

import argparse
import datetime
import hashlib
import json
import os
import random
import subprocess

BEACONS, PARTS = 2_000, 67


def publish(args, device, lines):
    command = ["mosquitto_pub", "-h", args.host, "-p", str(args.port), "-q", "1", "-l"]
    command += ["-t", f"devices/{device}/telemetry"]
    subprocess.run(command, input="".join(line + "\n" for line in lines).encode(), check=True)


def hub(now):
    beacons = [
        {"id": f"b-{n:02}", "rssi": random.randint(-95, -40), "battery": random.randint(20, 100)}
        for n in range(1, 51)
    ]
    return [json.dumps({"ts": now, "uptime_s": 86_400, "beacons": beacons})]


def gateway(now, drop):
    beacons = [
        {"mac": f"AA:BB:CC:00:{n // 256:02X}:{n % 256:02X}", "rssi": random.randint(-95, -40)}
        for n in range(BEACONS)
    ]
    # Of the whole as the gateway knows it: late copies of a part are then known as such.
    digest = hashlib.sha256(json.dumps(beacons).encode()).hexdigest()
    each = -(-BEACONS // PARTS)
    parts = [
        json.dumps({"txn": f"report {now}", "index": index, "total": PARTS, "sha256": digest,
                    "ts": now, "data": beacons[index * each:(index + 1) * each]})
        for index in range(PARTS)
        if index != drop
    ]
    parts += random.sample(parts, 7)
    random.shuffle(parts)
    return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    url = os.environ.get("HAYSTACK_MQTT_URL", "mqtt://127.0.0.1:1883")
    host, port = url.split("://")[1].split(":")
    parser.add_argument("--host", default=host)
    parser.add_argument("--port", default=int(port), type=int)
    parser.add_argument("--drop", type=int, metavar="PART", help="leave out a part (0 to 66)")
    args = parser.parse_args()
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    publish(args, "LH-001-2024", hub(now))
    print("LH-001-2024: 50 beacons in one message")
    parts = gateway(now, args.drop)
    publish(args, "BLE-001-2024", parts)
    print(f"BLE-001-2024: {BEACONS} beacons in {PARTS} parts, {len(parts)} messages")


if __name__ == "__main__":
    main()
