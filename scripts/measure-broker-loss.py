#!/usr/bin/env python3
"""What the broker's hop alone can lose: Mosquitto with the configuration that we ship.

A message counts as lost where its publisher got the PUBACK and the subscriber, whose session is
persistent as the bridge's is (MQTT 5, QoS 1, Receive Maximum 4,096), never got the message.

  1  the subscriber is away, the broker is killed (SIGKILL) at a random moment of its save cycle
  2  the same with a subscriber that is connected: it acknowledges at once, late, or not at all
  3  SIGTERM instead: a clean stop
  4  the queue for an absent subscriber overflows: which messages go, who is told
  5  a session younger than the last save, and what is published until its client is back

    python3 -m venv venv && venv/bin/pip install 'paho-mqtt>=2'
    venv/bin/python measure-broker-loss.py [--conf local/conf/mosquitto.conf] [--only 1,4]

Takes about a quarter of an hour and 2 GB in the temporary folder (set TMPDIR to the disk that
counts). Starts a broker of its own on a free port; it and its folder are gone afterwards. Listeners,
certificates, passwords and the access list are left out of the configuration; the rest is as it is.
"""
import argparse, array, collections, contextlib, getpass, multiprocessing, os, random, signal, socket
import statistics, subprocess, sys, tempfile, threading, time
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

LEFT_OUT = ("acl_file", "password_file", "listener", "cafile", "crlfile", "certfile", "keyfile",
            "tls_version", "require_certificate", "use_identity", "use_username", "protocol", "@WSS@")
MARKER = 2**64 - 1           # the number of the message that says: nothing is queued before me
LARGE, SMALL = 200_000, 200  # bytes of payload
WINDOW = 1_000               # a publisher has at most so many messages without a PUBACK
DROPPED = "$SYS/broker/publish/messages/dropped"


def connect(port, name, session_seconds=0, **handlers):
    it = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5,
                     reconnect_on_failure=False, manual_ack=True)
    it.max_inflight_messages_set(WINDOW)
    for event, handler in handlers.items():
        setattr(it, event, handler)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = session_seconds
    properties.ReceiveMaximum = 4_096
    it.connect("127.0.0.1", port, clean_start=not session_seconds, properties=properties)
    return it


class Broker:
    def __init__(self, conf, folder, changes):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.conf, self.log, self.saved = (os.path.join(folder, name) for name in ("conf", "log", "data/mosquitto.db"))
        os.mkdir(os.path.dirname(self.saved))
        lines = [line.replace("@DIR@", folder) for line in open(conf) if not line.startswith(LEFT_OUT + tuple(changes))]
        lines += [f"{name} {value}\n" for name, value in changes.items()]
        with open(self.conf, "w") as file:
            file.writelines(lines + [f"listener {self.port} 127.0.0.1\n", f"user {getpass.getuser()}\n"])

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", self.conf], stderr=log)
        while self.process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(("127.0.0.1", self.port)).close()
            time.sleep(0.01)
        sys.exit("mosquitto does not start: " + open(self.log).read())

    def stop(self, by=signal.SIGKILL):
        """When the signal was sent, and how long the broker took to end."""
        self.process.send_signal(by)
        at = time.monotonic()
        self.process.wait()
        return at, time.monotonic() - at

    def wait_saved(self):
        """Until the broker has saved its state once more; how long that took."""
        now, began = time.time_ns(), time.monotonic()
        while not (os.path.exists(self.saved) and os.stat(self.saved).st_mtime_ns > now):
            time.sleep(0.002)
        return time.monotonic() - began


@contextlib.contextmanager
def running(conf, **changes):
    with tempfile.TemporaryDirectory(prefix="broker-loss-") as folder:
        broker = Broker(conf, folder, changes)
        try:
            broker.start()
            yield broker
        finally:
            broker.stop()


class Subscriber:
    """Connected and subscribed; acknowledges a message when more than `hold` newer ones wait."""
    def __init__(self, port, hold=0):
        self.order, self.acked, self.held, self.hold = [], set(), collections.deque(), hold
        self.ready, self.marker, self.gone = threading.Event(), threading.Event(), threading.Event()
        self.client = connect(port, "bridge", 28 * 86_400, on_connect=self.on_connect, on_message=self.on_message,
                              on_subscribe=lambda *_: self.ready.set(), on_disconnect=lambda *_: self.gone.set())
        self.client.loop_start()
        assert self.ready.wait(60)

    def on_connect(self, _client, _data, flags, _reason, _properties):
        self.session_present = flags.session_present
        self.client.subscribe("telemetry/#", qos=1)

    def on_message(self, _client, _data, message):
        number = int.from_bytes(message.payload[:8], "big")
        if number == MARKER:
            self.client.ack(message.mid, 1)
            return self.marker.set()
        self.order.append(number)
        self.held.append((number, message.mid))
        while len(self.held) > self.hold:
            number, mid = self.held.popleft()
            self.client.ack(mid, 1)
            self.acked.add(number)

    def leave(self):
        self.client.disconnect()
        assert self.gone.wait(60)

    @classmethod
    def come_back(cls, port):
        """Take all that is queued, and leave; a message of our own says where the queue ends."""
        it, before = cls(port), -1
        while not it.marker.wait(0.5):
            assert not it.gone.is_set()
            if len(it.order) == before:
                it.client.publish("telemetry/marker", MARKER.to_bytes(8, "big"), qos=1)
            before = len(it.order)
        it.leave()
        return it


def publish(port, pipe, rate, large, count):
    """A process of its own: `large` messages as fast as it can, then small ones at `rate` (0: as fast
    as it can), `count` in all or until the broker is gone. Message n gets the n-th PUBACK."""
    acks, codes, gone = array.array("d"), collections.Counter(), []

    def on_publish(_client, _data, mid, reason, _properties):
        assert mid == len(acks) % 65_535 + 1, "PUBACKs out of order"
        acks.append(time.monotonic())
        codes[str(reason)] += 1

    it = connect(port, "device", on_publish=on_publish, on_disconnect=lambda *_: gone.append(True))
    while not it.is_connected():
        it.loop(1)
    sent, began = 0, None
    while not gone and len(acks) < count:
        if began is None and len(acks) >= large:
            began = time.monotonic()
            pipe.send(began)
        paced = large + int((time.monotonic() - began) * rate) if began and rate else count
        due = min(count, paced if began else large)
        for _ in range(min(due - sent, WINDOW - (sent - len(acks)), 100)):
            body = bytes((LARGE if sent < large else SMALL) - 8)
            it.publish("telemetry/one", sent.to_bytes(8, "big") + body, qos=1)
            sent += 1
        it.loop(0.001)
    if began is None:
        pipe.send(time.monotonic())
    pipe.send((acks, codes))


class Publisher:
    """Returns when its large messages are acknowledged and the small ones begin."""
    def __init__(self, port, rate=0, large=0, count=2**62):
        self.pipe, other = multiprocessing.Pipe()
        multiprocessing.Process(target=publish, args=(port, other, rate, large, count), daemon=True).start()
        self.large, self.began = large, self.pipe.recv()

    def result(self):
        self.acks, self.codes = self.pipe.recv()
        small = self.acks[self.large:]
        self.rate = len(small) / (small[-1] - self.began) if small else 0
        self.pause = max((b - a for a, b in zip(small, small[1:])), default=0)
        return self


def crash(conf, title, runs, rate, connected=False, hold=0, large=0, by=signal.SIGKILL):
    """Scenarios 1 to 3: publish, stop the broker within a save cycle, start it, take everything."""
    rows = collections.defaultdict(list)
    for _ in range(runs):
        with running(conf) as broker:
            first = Subscriber(broker.port, hold)
            if not connected:
                first.leave()
            broker.wait_saved()
            publisher = Publisher(broker.port, rate, large)
            broker.wait_saved()
            cycle = broker.wait_saved() if large else 3
            time.sleep(random.uniform(0, cycle))
            at, took = broker.stop(by)
            sent = publisher.result()
            assert first.gone.wait(60)
            broker.start()
            back = Subscriber.come_back(broker.port)
            assert back.session_present
        acked, again = set(range(len(sent.acks))), set(back.order)
        for who, had in ("", set(first.order)), (" if the subscriber dies too", first.acked):
            lost = acked - had - again
            rows["lost" + who].append(len(lost))
            rows["oldest lost, s" + who].append(max(0, at - sent.acks[min(lost)]) if lost else 0.0)
            if not who:
                rows["newest"].append(not lost or min(lost) > max((had | again) & acked, default=-1))
        for name, value in (("PUBACKs", len(acked)), ("rate", sent.rate), ("longest pause between PUBACKs, s", sent.pause),
                            ("save cycle, s", float(cycle)), ("broker took to end, s", took)):
            rows[name].append(value)
    print(f"{title}: {runs} runs, {statistics.median(rows.pop('rate')):,.0f}/s; the newest are lost: {all(rows.pop('newest'))}")
    for name, values in rows.items():
        form = "{:14,.2f}" if isinstance(values[0], float) else "{:14,.0f}"
        if connected or "dies" not in name:
            print(f"    {name:44}" + "".join(form.format(f(values)) for f in (min, statistics.median, max)), flush=True)


def overflow(conf, title, count, large=0, **changes):
    with running(conf, **changes) as broker:
        Subscriber(broker.port).leave()
        sent = Publisher(broker.port, 0, large, count).result()
        back = Subscriber.come_back(broker.port)
        seen, lost, told, known = set(back.order), set(range(count)) - set(back.order), [0], threading.Event()

        def on_message(_client, _data, message):
            told.append(int(message.payload))
            if told[-1] >= len(lost):
                known.set()
        watch = connect(broker.port, "watch", on_message=on_message, on_connect=lambda *_: watch.subscribe(DROPPED))
        watch.loop_start()
        known.wait(25)  # $SYS is written every ten seconds
        watch.disconnect()
        log = [line.strip() for line in open(broker.log) if "dropped" in line]
    print(f"{title}: PUBACKs {len(sent.acks):,} {dict(sent.codes)}, delivered {len(seen):,}, lost {len(lost):,}")
    print(f"    delivered {min(seen)}..{max(seen)}, lost {min(lost, default='-')}..{max(lost, default='-')}; {DROPPED} {told[-1]:,}; log {log}", flush=True)


def session(conf, older):
    with running(conf) as broker:
        broker.wait_saved()
        Subscriber(broker.port).leave()
        if older:
            broker.wait_saved()
        broker.stop()
        broker.start()
        sent = Publisher(broker.port, count=1_000).result()
        back = Subscriber.come_back(broker.port)
    print(f"5 session {'older' if older else 'younger'} than the last save: session present {back.session_present};"
          f" meanwhile PUBACKs {len(sent.acks):,} {dict(sent.codes)}, delivered {len(back.order):,}", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--conf", default="local/conf/mosquitto.conf")
    arguments.add_argument("--only", default="1,2,3,4,5", help="numbers of scenarios")
    arguments = arguments.parse_args()
    conf, only, began = arguments.conf, arguments.only.split(","), time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    multiprocessing.set_start_method("spawn")
    print(f"{'':48}{'least':>14}{'median':>14}{'most':>14}", flush=True)
    if "1" in only:
        crash(conf, "1 away, 1,000/s, SIGKILL", 10, 1_000)
        crash(conf, "1 away, flat out, SIGKILL", 10, 0)
        crash(conf, "1 away, 1,000/s behind 477 MiB in the queue, SIGKILL", 5, 1_000, large=2_500)
    if "2" in only:
        crash(conf, "2 acknowledges at once, 1,000/s, SIGKILL", 10, 1_000, True)
        crash(conf, "2 acknowledges at once, 5,000/s, SIGKILL", 10, 5_000, True)
        crash(conf, "2 holds 2,000 acknowledgements, 1,000/s, SIGKILL", 10, 1_000, True, 2_000)
        crash(conf, "2 acknowledges nothing, 2,000/s, SIGKILL", 5, 2_000, True, 2**62)
    if "3" in only:
        crash(conf, "3 away, flat out, SIGTERM", 3, 0, by=signal.SIGTERM)
        crash(conf, "3 holds 2,000 acknowledgements, 1,000/s, SIGTERM", 3, 1_000, True, 2_000, by=signal.SIGTERM)
    if "4" in only:
        overflow(conf, "4 max_queued_messages 5,000, 8,000 sent", 8_000, max_queued_messages=5_000)
        overflow(conf, "4 max_queued_bytes 1,000,000, 8,000 x 200 bytes sent", 8_000, max_queued_bytes=1_000_000)
        overflow(conf, "4 as shipped, 3,000 x 200 KB sent", 3_000, large=3_000)
    if "5" in only:
        session(conf, older=False)
        session(conf, older=True)
    print(f"took {(time.monotonic() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
