import { createHash } from "node:crypto";
import { expect, inject, it } from "vitest";
import { startNatsServer } from "../../support/nats-server.js";
import { bytesOf, failureOf, operationsOf, timeoutMs } from "./operations-of.js";

const mib = 1024 * 1024;
const maxBytes = 128 * mib;
/** Time limit of calls that read much and must succeed. */
const longMs = 200_000;

/** Makes bytes of that length; other lengths have other bytes. */
function large(length: number): Buffer {
  return Buffer.alloc(length, createHash("sha512").update(`${length}`).digest());
}

it("many who read large files at once get them, and nobody else on the connection is harmed", async () => {
  // A server that gives a client less room than by default, so that a slow reader would be cut off for certain.
  await using server = await startNatsServer({ jetStream: true, config: "max_pending: 32MB" });
  await using used = await operationsOf(server.url);
  const { objectStores, keyValue } = used.operations;
  const content = large(20 * mib);
  await objectStores.put("s", "f", content, { timeoutMs: longMs });
  let reading = true;
  const bystander = (async () => {
    let calls = 0;
    for (; reading; calls++) {
      await used.operations.publish("by", bytesOf(100), { timeoutMs: longMs });
      await keyValue.put("by", "k", bytesOf(calls), { timeoutMs: longMs });
    }
    return calls;
  })();
  const read = async () => content.equals(await objectStores.get("s", "f", { maxBytes, timeoutMs: longMs }));
  try {
    expect(await Promise.all(Array.from({ length: 16 }, read))).toEqual(new Array(16).fill(true));
  } finally {
    reading = false;
  }
  expect(await bystander).toBeGreaterThan(10);
  expect(used.connection.isClosed()).toBe(false);
  expect(server.log()).not.toContain("Slow Consumer");
});

it("who waits for its turn times out by its own deadline, and those after it get theirs", async () => {
  await using server = await startNatsServer({ jetStream: true });
  await using used = await operationsOf(server.url);
  const { objectStores } = used.operations;
  const content = large(20 * mib);
  await objectStores.put("s", "f", content, { timeoutMs: longMs });
  await objectStores.put("s", "small", large(mib), { timeoutMs });
  for (let round = 0; round < 5; round++) {
    const hasty = Array.from({ length: 16 }, () =>
      failureOf("nats_timeout", () => objectStores.get("s", "f", { maxBytes, timeoutMs: 20 })),
    );
    const patient = objectStores.get("s", "small", { maxBytes, timeoutMs: longMs });
    await Promise.all(hasty);
    expect(large(mib).equals(await patient)).toBe(true);
  }
  expect(content.equals(await objectStores.get("s", "f", { maxBytes, timeoutMs: longMs }))).toBe(true);
  expect(used.connection.isClosed()).toBe(false);
});

it("a small file does not wait for large ones to be read to their end", async () => {
  await using server = await startNatsServer({ jetStream: true });
  await using used = await operationsOf(server.url);
  const { objectStores } = used.operations;
  await objectStores.put("s", "f", large(32 * mib), { timeoutMs: longMs });
  await objectStores.put("s", "small", large(mib), { timeoutMs });
  let done = 0;
  const all = Array.from({ length: 10 }, async () => {
    await objectStores.get("s", "f", { maxBytes, timeoutMs: longMs });
    done++;
  });
  await objectStores.get("s", "small", { maxBytes, timeoutMs: longMs });
  expect(done).toBe(0);
  await Promise.all(all);
});

it("a file of 64 MiB is put and read", async () => {
  await using used = await operationsOf(inject("natsUrl"));
  const { objectStores } = used.operations;
  const content = large(64 * mib);
  await objectStores.put("operations_files_large", "f", content, { timeoutMs: longMs });
  const read = await objectStores.get("operations_files_large", "f", { maxBytes, timeoutMs: longMs });
  expect(content.equals(read)).toBe(true);
  await objectStores.delete("operations_files_large", "f", { timeoutMs });
});
