#!/usr/bin/env python3
"""A device with a client library that is not ours, Eclipse paho-mqtt, for the tests.

It says what a device says (will, birth, telemetry), waits until the broker has confirmed it (with
--expect-receipts: and the platform), prints what it counted, and obeys commands until a line or the
end of its input tells it to leave. Exit code 1 if anything goes wrong (2: called wrongly).
mqttjs_device.mjs does the same. After `sh install.sh DIR`:

    PYTHONPATH=DIR python3 paho_device.py --url mqtt://127.0.0.1:1883 --protocol 5 \\
        --device TS-001-2024 --from 100 --count 25
"""

import argparse
import datetime
import json
import os
import re
import select
import sys
import time
import urllib.parse

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

KEEP_ALIVE, SIGN_IN, OVERALL = 7, 14, 59  # seconds; silence is noticed after two keep-alives
PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
START = datetime.datetime(2026, 1, 1)


class Device:
    def __init__(self, args, url):
        self.args, self.began = args, time.monotonic()
        self.connected = self.leaving = False
        self.granted = self.published = self.acked = 0
        self.sent, self.receipts, self.commands = set(), set(), []
        self.client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=args.device,
            protocol=mqtt.MQTTv5 if args.protocol == 5 else mqtt.MQTTv311,
            transport="websockets" if url.scheme.startswith("ws") else "tcp")
        for name in ("connect", "disconnect", "subscribe", "publish", "message", "log"):
            setattr(client, f"on_{name}", getattr(self, f"on_{name}"))
        client.will_set(self.topic("status"), '{"online":false}', qos=1, retain=True)
        client.ws_set_options(path=url.path if url.path.strip("/") else "/mqtt")
        if url.scheme in ("mqtts", "wss"):
            client.tls_set(ca_certs=args.ca, certfile=args.cert, keyfile=args.key)
        client.connect(url.hostname, url.port or PORTS[url.scheme], KEEP_ALIVE)

    def topic(self, last):
        return f"devices/{self.args.device}/{last}"

    def on_connect(self, client, userdata, flags, reason, properties):
        check(not reason.is_failure, f"the broker refuses the connection: {reason}")
        self.connected = True

    def on_disconnect(self, client, userdata, flags, reason, properties):
        check(self.leaving, f"the connection ended: {reason}")
        self.connected = False

    def on_subscribe(self, client, userdata, mid, reasons, properties):
        check([reason.value for reason in reasons] == [1], f"not subscribed at QoS 1: {reasons}")
        self.granted += 1

    def on_publish(self, client, userdata, mid, reason, properties):
        check(not reason.is_failure, f"the broker refuses a message: {reason}")
        self.acked += 1

    def on_message(self, client, userdata, message):
        if message.topic == self.topic("commands"):
            return self.commands.append(message)
        receipt = json.loads(message.payload)
        second = re.sub(r"(\.0+)?Z$", "", str(receipt.get("ts")))
        if second in self.sent and receipt.get("stored_at"):
            self.receipts.add(second)
        else:
            check(not self.args.expect_receipts, f"a receipt for nothing sent: {receipt}")

    def on_log(self, client, userdata, level, text):
        if level == mqtt.MQTT_LOG_ERR and not text.startswith("Caught exception"):
            print(f"paho: {text}", file=sys.stderr)

    def publish(self, topic, payload, **more):
        self.published += 1
        code = self.client.publish(topic, payload, qos=1, **more).rc
        check(code == mqtt.MQTT_ERR_SUCCESS, f"cannot publish: {mqtt.error_string(code)}")

    def until(self, condition, what, seconds=OVERALL):
        while not condition():
            counted = f"{self.acked} acked of {self.published}, {len(self.receipts)} receipts"
            in_time = time.monotonic() < self.began + seconds
            check(in_time, f"not done after {seconds} s: {what} ({counted})")
            code = self.client.loop(0.1)
            check(code == mqtt.MQTT_ERR_SUCCESS, f"connection lost: {mqtt.error_string(code)}")

    def told_to_leave(self):
        while self.commands:
            self.obey(self.commands.pop(0))
        if not select.select([sys.stdin], [], [], 0)[0]:
            return False
        sys.stdin.readline()
        return True

    def obey(self, command):
        answer_to = getattr(command.properties, "ResponseTopic", None)
        say({"command": command.payload.decode(errors="replace"), "response_topic": answer_to})
        if answer_to:
            properties = Properties(PacketTypes.PUBLISH)
            if hasattr(command.properties, "CorrelationData"):
                properties.CorrelationData = command.properties.CorrelationData
            self.publish(answer_to, '{"ok":true}', properties=properties)

    def run(self, start, count):
        all_acked = lambda: self.acked == self.published
        self.until(lambda: self.connected, "CONNACK", SIGN_IN)
        for last in ("commands", "receipts"):
            self.client.subscribe(self.topic(last), qos=1)
        self.until(lambda: self.granted == 2, "SUBACK", SIGN_IN)
        self.publish(self.topic("status"), '{"online":true}', retain=True)
        self.until(all_acked, "PUBACK of the birth", SIGN_IN)
        self.published = self.acked = 0
        for number in range(start, start + count):
            second = (START + datetime.timedelta(seconds=number)).isoformat()
            self.sent.add(second)
            payload = f'{{"ts":"{second}.000Z","temperature":21.5,"humidity":40}}'
            self.publish(self.topic("telemetry"), payload)
        self.until(all_acked, "PUBACKs")
        if self.args.expect_receipts:
            self.until(lambda: len(self.receipts) == count, "receipts")
        say({"acked": self.acked, "receipts": len(self.receipts)})
        self.until(self.told_to_leave, "a line or the end of the input")
        self.until(all_acked, "PUBACKs of answers")
        self.leave()

    def leave(self):
        # paho closes right after its DISCONNECT. Where something unread has come in by then, the
        # kernel resets the connection, and the broker may lose the DISCONNECT and publish the will.
        # A second handle keeps it open until the broker closes it or nothing comes any more.
        handle = os.dup(self.client.socket().fileno())
        self.leaving = True
        self.client.disconnect()
        self.until(lambda: not self.connected, "DISCONNECT sent")
        while select.select([handle], [], [], 0.5)[0] and os.read(handle, 65536):
            pass


def check(right, message):
    if not right:
        raise RuntimeError(message)


def say(what):
    print(json.dumps(what, ensure_ascii=False), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True, help="mqtt, mqtts, ws or wss")
    parser.add_argument("--protocol", required=True, type=int, choices=(3, 5), help="3: MQTT 3.1.1")
    parser.add_argument("--device", required=True)
    parser.add_argument("--from", dest="start", required=True, type=int, help="the first's number")
    parser.add_argument("--count", required=True, type=int)
    for name in ("--ca", "--cert", "--key"):
        parser.add_argument(name, help="a PEM file, for mqtts and wss")
    parser.add_argument("--expect-receipts", action="store_true")
    args = parser.parse_args()
    url = urllib.parse.urlsplit(args.url)
    if url.scheme not in PORTS:
        parser.error("--url: its scheme is one of " + ", ".join(PORTS))
    for path in filter(None, (args.ca, args.cert, args.key)):
        os.stat(path)  # this error says which file; the library's does not
    Device(args, url).run(args.start, args.count)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # whatever the library throws
        sys.exit(f"paho_device: {str(error) or repr(error)}")
