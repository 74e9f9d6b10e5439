#!/usr/bin/env node
// A device with a client library that is not ours, MQTT.js, for the tests.
//
// It says what a device says (will, birth, telemetry), waits until the broker has confirmed it
// (with --expect-receipts: and the platform), prints what it counted, and obeys commands until a
// line or the end of its input tells it to leave. Exit code 1 if anything goes wrong.
// paho_device.py does the same. After `sh install.sh DIR`:
//
//     NODE_PATH=DIR/node_modules node mqttjs_device.mjs --url mqtt://127.0.0.1:1883 --protocol 5 \
//         --device TS-001-2024 --from 100 --count 25

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

// Seconds; silence is noticed after one and a half keep-alives.
const KEEP_ALIVE = 7;
const SIGN_IN = 14;
const OVERALL = 59;
// MQTT.js takes no notice of the broker's Receive Maximum.
const IN_FLIGHT = 20;
const SCHEMES = ["mqtt:", "mqtts:", "ws:", "wss:"];
const START = Date.UTC(2026, 0, 1);
const wholeSecond = (ts) => String(ts).replace(/(\.0+)?Z$/, "");

function fail(message) {
  console.error(`mqttjs_device: ${message}`);
  process.exit(1);
}

function options() {
  const needed = ["url", "protocol", "device", "from", "count"];
  const texts = [...needed, "ca", "cert", "key"].map((name) => [name, { type: "string" }]);
  const known = { ...Object.fromEntries(texts), "expect-receipts": { type: "boolean" } };
  const { values } = parseArgs({ options: known });
  for (const name of needed) {
    if (values[name] === undefined) fail(`--${name} is missing`);
  }
  const [protocol, from, count] = [values.protocol, values.from, values.count].map(Number);
  if (![3, 5].includes(protocol)) fail("--protocol is 3 (MQTT 3.1.1) or 5");
  if (![from, count].every(Number.isInteger)) fail("--from and --count are numbers");
  return { ...values, protocol, from, count };
}

/// The library's options. Certificates only with TLS: given them, MQTT.js makes mqtt:// mqtts://.
function connection(args, status) {
  const url = new URL(args.url);
  if (!SCHEMES.includes(url.protocol)) fail(`--url: its scheme is one of ${SCHEMES}`);
  const secure = ["mqtts:", "wss:"].includes(url.protocol);
  if (url.protocol.startsWith("ws") && url.pathname === "/") url.pathname = "/mqtt";
  const files = ["ca", "cert", "key"].filter((name) => secure && args[name]);
  return [url.href, {
    ...Object.fromEntries(files.map((name) => [name, readFileSync(args[name])])),
    clientId: args.device,
    protocolVersion: args.protocol === 5 ? 5 : 4,
    clean: true,
    keepalive: KEEP_ALIVE,
    connectTimeout: SIGN_IN * 1_000,
    reconnectPeriod: 0,
    will: { topic: status, payload: '{"online":false}', qos: 1, retain: true },
  }];
}

async function main(args) {
  // By require, which looks at NODE_PATH; import does not.
  const mqtt = createRequire(import.meta.url)("mqtt");
  const topic = (last) => `devices/${args.device}/${last}`;
  const [sent, receipts, held, answers] = [new Set(), new Set(), [], []];
  let [acked, ready, leaving, allReceived] = [0, false, false, () => {}];
  const counted = () => `${acked} acked, ${receipts.size} receipts of ${args.count}`;
  setTimeout(() => fail(`not done after ${OVERALL} s (${counted()})`), OVERALL * 1_000);
  const signedIn = setTimeout(() => fail(`not signed in after ${SIGN_IN} s`), SIGN_IN * 1_000);

  const client = mqtt.connect(...connection(args, topic("status")));
  // Confirming what still comes in after the DISCONNECT is an error to MQTT.js.
  client.on("error", (error) => leaving || fail(error.message || error.code));
  client.on("disconnect", ({ reasonCode }) => fail(`the broker disconnects: ${reasonCode}`));
  client.on("close", () => leaving || fail("the connection is lost"));
  client.on("message", (where, payload, packet) => {
    if (where === topic("receipts")) takeReceipt(payload.toString());
    else if (ready) obey(payload, packet.properties);
    else held.push([payload, packet.properties]);
  });

  function takeReceipt(payload) {
    const receipt = JSON.parse(payload);
    const second = wholeSecond(receipt.ts);
    if (sent.has(second) && receipt.stored_at) receipts.add(second);
    else if (args["expect-receipts"]) fail(`a receipt for nothing that was sent: ${payload}`);
    if (receipts.size === args.count) allReceived();
  }

  function obey(payload, { responseTopic, correlationData } = {}) {
    const parts = [payload.toString(), responseTopic ?? null].map((it) => JSON.stringify(it));
    console.log(`{"command": ${parts[0]}, "response_topic": ${parts[1]}}`);
    if (!responseTopic) return;
    const properties = correlationData === undefined ? {} : { correlationData };
    answers.push(client.publishAsync(responseTopic, '{"ok":true}', { qos: 1, properties }));
  }

  await once(client, "connect");
  const granted = await client.subscribeAsync([topic("commands"), topic("receipts")], { qos: 1 });
  if (granted.length !== 2 || granted.some(({ qos }) => qos !== 1)) {
    fail(`the broker refuses a subscription at QoS 1: ${JSON.stringify(granted)}`);
  }
  await client.publishAsync(topic("status"), '{"online":true}', { qos: 1, retain: true });
  clearTimeout(signedIn);

  const inFlight = new Set();
  for (let number = args.from; number < args.from + args.count; number += 1) {
    const ts = new Date(START + number * 1_000).toISOString();
    sent.add(wholeSecond(ts));
    const payload = JSON.stringify({ ts, temperature: 21.5, humidity: 40 });
    const publish = client.publishAsync(topic("telemetry"), payload, { qos: 1 }).then(() => {
      acked += 1;
      inFlight.delete(publish);
    });
    inFlight.add(publish);
    if (inFlight.size === IN_FLIGHT) await Promise.race(inFlight);
  }
  await Promise.all(inFlight);
  if (args["expect-receipts"] && receipts.size < args.count) {
    await new Promise((resolve) => (allReceived = resolve));
  }
  console.log(`{"acked": ${acked}, "receipts": ${receipts.size}}`);

  ready = true;
  held.forEach((command) => obey(...command));
  const input = createInterface({ input: process.stdin });
  await new Promise((resolve) => input.once("line", resolve).once("close", resolve));
  await Promise.all(answers);
  leaving = true;
  await client.endAsync();
  process.exit(0);
}

process.on("uncaughtException", (error) => fail(error.message || error.code));
main(options());
