/**
 * Payloads above the threshold travel and are stored compressed; the handler never sees that.
 */
import { randomBytes } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { expect, it } from "vitest";
import { freePort } from "../../src/dev/free-port.js";
import { eventually } from "../support/eventually.js";
import { TcpProxy } from "../transport/tcp-proxy.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const threshold = 1_000;

it("compresses strictly above the threshold, live", async () => {
  const a = await world.started("a-1", { compressThresholdBytes: threshold });
  const got: Uint8Array[] = [];
  const b = await world.started("b-1", {}, ({ payload }) => void got.push(payload.slice()));
  const payloads = [
    Buffer.alloc(threshold, "a"),
    Buffer.alloc(threshold + 1, "b"),
    Buffer.alloc(3_000_000, "c"),
    // What does not get shorter stays as it is.
    randomBytes(threshold * 2),
    Buffer.from("small"),
  ];
  for (const delivery of ["at-least-once", "at-most-once"] as const) {
    await Promise.all(payloads.map((payload) => a.sendTo("b", payload, { delivery })));
  }
  await b.received.length(payloads.length * 2);
  expect(got.map((payload) => Buffer.compare(payload, payloads[got.indexOf(payload) % 5] as Buffer))).toEqual(
    Array(10).fill(0),
  );
});

it("puts few bytes on the wire for much of the same", async () => {
  const port = await freePort();
  await using proxy = await TcpProxy.to(port);
  const a = await world.started("a-1", { compressThresholdBytes: threshold });
  const b = await world.started("b-1", { listen: `127.0.0.1:${port}`, advertise: proxy.address });
  await a.sendTo("b", Buffer.alloc(1_000_000, "x"), { delivery: "at-most-once" });
  await b.received.length(1);
  expect(b.received.all[0]?.text).toHaveLength(1_000_000);
  const bytes = proxy.forward.reduce((sum, { length }) => sum + length, 0);
  expect(bytes).toBeLessThan(10_000);
});

it("stores as gzip what is above the threshold, and hands it over as it was", async () => {
  const a = await world.started("a-1", { compressThresholdBytes: threshold });
  const b = await world.started("b-1");
  await a.sendTo("b", "hello");
  await b.stop();
  const payloads = [Buffer.alloc(threshold, "a"), Buffer.alloc(threshold + 1, "b"), randomBytes(threshold * 2)];
  for (const payload of payloads) expect((await a.sendTo("b", payload)).outcome).toBe("stored");
  const rows = await world.query<{ codec: number; payload: Buffer }>(
    "SELECT codec, payload FROM hawser.conn_messages ORDER BY epoch, number",
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
  const a = await world.started("a-1", { compressThresholdBytes: threshold });
  const b = await world.started("b-1");
  await a.sendTo("b", "begin");
  const texts = Array.from({ length: 60 }, (_, n) => (n % 4 === 0 ? `${n} ${"x".repeat(200_000)}` : `${n}`));
  await Promise.all(texts.map((text) => a.sendTo("b", text)));
  await b.received.length(61);
  expect(b.texts.map((text) => Number.parseInt(text, 10)).slice(1)).toEqual(texts.map((_, n) => n));
});

it("makes a dead letter with the plain payload", async () => {
  const a = await world.started("a-1", { compressThresholdBytes: threshold });
  const b = await world.started("b-1", { maxAttempts: 1 }, () => {
    throw new Error("no");
  });
  const payload = Buffer.alloc(threshold * 10, "x");
  await a.sendTo("b", payload);
  await b.saw("dead_letter");
  const letters = () => world.query<{ payload: Buffer }>("SELECT payload FROM hawser.dead_letters");
  await eventually("the dead letter is there", async () => (await letters()).length === 1);
  const [row] = await letters();
  expect(row?.payload.equals(payload)).toBe(true);
});

it("counts the uncompressed length against the listener's limit", async () => {
  const a = await world.started("a-1", { compressThresholdBytes: threshold });
  await world.started("b-1", { maxMessageBytes: 5_000 });
  await expect(a.sendTo("b", Buffer.alloc(5_001))).rejects.toMatchObject({ code: "invalid_argument" });
  expect((await a.sendTo("b", Buffer.alloc(5_000))).outcome).toBe("delivered");
});

it("handles a stored message that is longer than the listener takes over the wire since its restart", async () => {
  const a = await world.started("a-1", { compressThresholdBytes: threshold });
  const b = await world.started("b-1");
  await a.sendTo("b", "hello");
  await b.stop();
  const text = "z".repeat(100_000);
  await a.sendTo("b", text);
  const again = await world.started("b-1", { maxMessageBytes: 50_000 });
  await again.received.length(1);
  expect(again.texts[0] === text).toBe(true);
});
