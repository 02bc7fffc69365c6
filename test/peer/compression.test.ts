/**
 * Payloads above the threshold travel and are stored compressed; the handler never sees that.
 */
import { randomBytes } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { expect, it } from "vitest";
import { TcpProxy } from "../transport/tcp-proxy.js";
import { portOf } from "./support/cuttable.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const threshold = 1_000;

it("compresses strictly above the threshold, live, which puts few bytes on the wire", async () => {
  let address = "";
  await using proxy = await TcpProxy.to(() => portOf(address));
  const a = await world.started("a-1", { tuning: { compressThresholdBytes: threshold } });
  const got: Uint8Array[] = [];
  const options = { advertise: proxy.address };
  const b = await world.started("b-1", options, ({ payload }) => void got.push(payload.slice()));
  address = b.localAddress;
  const payloads = [
    Buffer.alloc(threshold, "a"),
    Buffer.alloc(threshold + 1, "b"),
    Buffer.alloc(3_000_000, "c"),
    // What does not get shorter stays as it is.
    randomBytes(threshold * 2),
    Buffer.from("small"),
  ];
  for (const delivery of ["at-least-once", "at-most-once"] as const) {
    await Promise.all(payloads.map((payload) => a.send("b", payload, { delivery })));
  }
  await b.received.length(payloads.length * 2);
  expect(got.map((payload, n) => Buffer.compare(payload, payloads[n % 5] as Buffer))).toEqual(Array(10).fill(0));
  const sent = Buffer.concat(proxy.forward);
  expect(payloads.map((payload) => sent.includes(payload))).toEqual([true, false, false, true, true]);
  expect(sent.length).toBeLessThan(20_000);
});

it("stores as gzip what is above the threshold, and hands it over as it was", async () => {
  const a = await world.started("a-1", { tuning: { compressThresholdBytes: threshold } });
  const b = await world.started("b-1");
  await a.send("b", "hello");
  await b.stop();
  const payloads = [Buffer.alloc(threshold, "a"), Buffer.alloc(threshold + 1, "b"), randomBytes(threshold * 2)];
  for (const payload of payloads) expect((await a.send("b", payload)).outcome).toBe("stored");
  const rows = await world.query<{ codec: number; payload: Buffer }>(
    "SELECT codec, payload FROM hawser_peer_data.stored_messages ORDER BY epoch, number",
  );
  expect(rows.map(({ codec }) => codec)).toEqual([0, 1, 0]);
  expect(gunzipSync(rows[1]?.payload as Buffer).equals(payloads[1] as Buffer)).toBe(true);
  const got: Uint8Array[] = [];
  const again = world.peer("b-1");
  await again.record(({ payload }) => void got.push(payload.slice()));
  await again.received.length(3);
  expect(got.every((payload, n) => Buffer.compare(payload, payloads[n] as Buffer) === 0)).toBe(true);
});

it("keeps the order of compressed and small messages", async () => {
  const a = await world.started("a-1", { tuning: { compressThresholdBytes: threshold } });
  const b = await world.started("b-1");
  await a.send("b", "begin");
  const texts = Array.from({ length: 60 }, (_, n) => (n % 4 === 0 ? `${n} ${"x".repeat(200_000)}` : `${n}`));
  await Promise.all(texts.map((text) => a.send("b", text)));
  await b.received.length(61);
  expect(b.texts.map((text) => Number.parseInt(text, 10)).slice(1)).toEqual(texts.map((_, n) => n));
});

it("makes a dead letter with the plain payload", async () => {
  const a = await world.started("a-1", { tuning: { compressThresholdBytes: threshold } });
  await world.started("b-1", { defaults: { retry: { attempts: 1 } } }, () => {
    throw new Error("no");
  });
  const payload = Buffer.alloc(threshold * 10, "x");
  await a.send("b", payload);
  const [letter] = await world.deadLetters(1);
  expect(payload.equals(letter?.["payload"] as Buffer)).toBe(true);
});

it("handles a stored message that is longer than the listener takes over the wire since its restart", async () => {
  const a = await world.started("a-1", { tuning: { compressThresholdBytes: threshold } });
  const b = await world.started("b-1");
  await a.send("b", "hello");
  await b.stop();
  const text = "z".repeat(100_000);
  await a.send("b", text);
  const again = await world.started("b-1", { maxMessageBytes: 50_000 });
  await again.received.length(1);
  expect(again.texts[0] === text).toBe(true);
});
