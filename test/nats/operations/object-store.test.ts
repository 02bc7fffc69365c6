import { createHash } from "node:crypto";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { slowIt } from "../../support/slow-it.js";
import { withEnoughTime } from "../../support/timers.js";
import {
  bytesOf,
  failureOf,
  hang,
  interceptArrivals,
  type Operations,
  operationsOf,
  timeoutMs,
} from "./operations-of.js";

const options = { timeoutMs };
const reading = { timeoutMs, maxBytes: 128 * 1024 * 1024 };
const kib = 1024;

/** Larger than the tests' other content; cheaper to make. */
function large(length: number): Buffer {
  return Buffer.alloc(length, createHash("sha512").update(`${length}`).digest());
}

/** On the server of the run. */
let used: Operations;
beforeAll(async () => {
  used = await operationsOf(inject("natsUrl"));
});
afterAll(() => used?.[Symbol.asyncDispose]());

describe.concurrent("put and get of a file", () => {
  it("create the store on the first put, with the defaults of the client", async () => {
    await used.operations.objectStores.put("operations_files_made", "f", bytesOf(1), options);
    await new Objm(used.stock).create("operations_files_default");
    const manager = await jetstreamManager(used.stock);
    const { config: ours } = await manager.streams.info("OBJ_operations_files_made");
    const { config: theirs } = await manager.streams.info("OBJ_operations_files_default");
    expect({ ...ours, name: "", subjects: [] }).toEqual({ ...theirs, name: "", subjects: [] });
    expect(ours.storage).toBe("file");
  });

  it("replace a file, of which nothing is left", async () => {
    const { objectStores } = used.operations;
    const store = "operations_files_replaced";
    for (const size of [400 * kib, 300 * kib, 200 * kib]) await objectStores.put(store, "f", large(size), options);
    expect(large(200 * kib).equals(await objectStores.get(store, "f", reading))).toBe(true);
    const { state } = await (await jetstreamManager(used.stock)).streams.info(`OBJ_${store}`);
    // Two chunks and the record.
    expect(state.messages).toBe(3);
  });

  it("keep one of many that are put at once, whole, and nothing of the others", async () => {
    const { objectStores } = used.operations;
    const store = "operations_files_race";
    const sizes = Array.from({ length: 20 }, (_, index) => 200 * kib + index);
    await Promise.all(sizes.map((size) => objectStores.put(store, "f", large(size), options)));
    const { length } = await objectStores.get(store, "f", reading);
    expect(sizes).toContain(length);
    const { state } = await (await jetstreamManager(used.stock)).streams.info(`OBJ_${store}`);
    expect(state.messages).toBe(3);
  });

  slowIt("read one version or the other while a file is being replaced", async () => {
    const { objectStores } = used.operations;
    const store = "operations_files_busy";
    const versions = [large(1024 * kib), large(1024 * kib + 1)];
    await objectStores.put(store, "f", versions[0]!, options);
    let writing = true;
    const writer = (async () => {
      for (let round = 0; round < 30; round++) await objectStores.put(store, "f", versions[round % 2]!, options);
      writing = false;
    })();
    let reads = 0;
    while (writing) {
      const read = Buffer.from(await objectStores.get(store, "f", reading));
      expect(versions.some((version) => version.equals(read))).toBe(true);
      reads++;
    }
    await writer;
    expect(reads).toBeGreaterThan(0);
  });

  it("leave no consumer behind", async () => {
    const { objectStores } = used.operations;
    const store = "operations_files_consumers";
    await objectStores.put(store, "f", large(1024 * kib), options);
    for (let round = 0; round < 5; round++) await objectStores.get(store, "f", reading);
    await objectStores.list(store, reading);
    const manager = await jetstreamManager(used.stock);
    await eventually("the consumers are gone", async () => {
      return (await manager.streams.info(`OBJ_${store}`)).state.consumer_count === 0;
    });
  });

  it("refuse a file beyond the limit before reading it", async () => {
    const { objectStores } = used.operations;
    await objectStores.put("operations_files_limit", "f", bytesOf(1_001), options);
    const error = await failureOf("gateway_limit", () =>
      objectStores.get("operations_files_limit", "f", { timeoutMs, maxBytes: 1_000 }),
    );
    expect(error.message).toContain("1001 bytes; at most 1000");
    await objectStores.get("operations_files_limit", "f", { timeoutMs, maxBytes: 1_001 });
    await failureOf("gateway_limit", () => objectStores.list("operations_files_limit", { timeoutMs, maxBytes: 10 }));
  });

  it("tell a damaged file", async () => {
    const { objectStores } = used.operations;
    const manager = await jetstreamManager(used.stock);
    for (const [store, size] of [
      ["operations_files_damaged1", 10],
      ["operations_files_damaged2", 400 * kib],
    ] as const) {
      await objectStores.put(store, "lost", large(size), options);
      await objectStores.put(store, "changed", large(size), options);
      const lost = await objectStores.info(store, "lost", options);
      await manager.streams.purge(`OBJ_${store}`, { filter: `$O.${store}.C.${lost.nuid}` });
      const changed = await objectStores.info(store, "changed", options);
      await manager.streams.purge(`OBJ_${store}`, { filter: `$O.${store}.C.${changed.nuid}` });
      const chunks = Number(changed.chunks);
      for (let chunk = 0; chunk < chunks; chunk++) {
        await jetstream(used.stock).publish(
          `$O.${store}.C.${changed.nuid}`,
          Buffer.alloc(Math.min(size - chunk * 128 * kib, 128 * kib)),
        );
      }
      const error = await failureOf("nats_failed", () => objectStores.get(store, "lost", reading));
      expect(error.message).toContain(`File "lost" of store "${store}" is damaged`);
      await failureOf("nats_failed", () => objectStores.get(store, "changed", reading));
    }
  });

  it("follow a link to a file, and create no store that a link names", async () => {
    const { objectStores } = used.operations;
    const stock = await new Objm(used.stock).create("operations_files_links");
    const other = await new Objm(used.stock).create("operations_files_linked");
    const target = await other.putBlob({ name: "target" }, bytesOf(5));
    await stock.link("link", target);
    expect([...(await objectStores.get("operations_files_links", "link", reading))]).toEqual([...bytesOf(5)]);
    await stock.linkStore("whole", other);
    await failureOf("nats_failed", () => objectStores.get("operations_files_links", "whole", reading));
    await other.destroy();
    await failureOf("file_missing", () => objectStores.get("operations_files_links", "link", reading));
    const manager = await jetstreamManager(used.stock);
    await expect(manager.streams.info("OBJ_operations_files_linked")).rejects.toThrow("stream not found");
  });
});

describe.concurrent("an object store", () => {
  it("takes the time of the message if the record of another client has none", async () => {
    const { objectStores } = used.operations;
    const store = "operations_files_times";
    await new Objm(used.stock).create(store);
    const record = { name: "f", bucket: store, nuid: "n", size: 0, chunks: 0, mtime: "0001-01-01T00:00:00Z" };
    await jetstream(used.stock).publish(`$O.${store}.M.Zg==`, JSON.stringify(record));
    const { modified } = await objectStores.info(store, "f", options);
    expect(Math.abs(Date.parse(modified) - Date.now())).toBeLessThan(60_000);
    expect((await objectStores.list(store, reading))[0]!.modified.slice(0, 19)).toBe(modified.slice(0, 19));
  });

  it("lists thousands of files", async () => {
    const store = "operations_files_many";
    await new Objm(used.stock).create(store);
    const client = jetstream(used.stock, { timeout: timeoutMs });
    const names = Array.from({ length: 3_000 }, (_, index) => `f${`${index}`.padStart(5, "0")}`);
    const put = (name: string) =>
      client.publish(
        `$O.${store}.M.${Buffer.from(name).toString("base64url")}`,
        JSON.stringify({ name, bucket: store, nuid: name, size: 0, chunks: 0 }),
      );
    await Promise.all(names.map(put));
    const listed = await used.operations.objectStores.list(store, reading);
    expect(listed.map(({ name }) => name)).toEqual(names);
  });

  it("has nothing of a deleted file but the record of the deletion", async () => {
    const { objectStores } = used.operations;
    const store = "operations_files_deleted";
    await objectStores.put(store, "f", large(300 * kib), options);
    await objectStores.delete(store, "f", options);
    await objectStores.delete(store, "f", options);
    await objectStores.delete(store, "never there", options);
    const stock = await new Objm(used.stock).open(store);
    expect((await stock.info("f"))!.deleted).toBe(true);
    expect(await stock.get("f")).toBeNull();
    expect((await stock.status()).streamInfo.state.messages).toBe(1);
  });
});

describe.concurrent("failures of files", () => {
  it("is nats_permission_denied if the user may not, and names store and file", async () => {
    await using server = await startNatsServer({
      jetStream: true,
      config: 'authorization { users: [{ user: u, password: p, permissions: { publish: { deny: ["$JS.>"] } } }] }',
    });
    await using used = await operationsOf(server.url, { user: "u", pass: "p" });
    const { objectStores } = used.operations;
    const error = await failureOf("nats_permission_denied", () => objectStores.put("s", "f", bytesOf(1), options));
    expect(error.message).toContain('put of file "f" into store "s"');
    await failureOf("nats_permission_denied", () => objectStores.get("s", "f", reading));
    await failureOf("nats_permission_denied", () => objectStores.list("s", reading));
  });

  it("leaves no chunk if a store is full", async () => {
    const { objectStores } = used.operations;
    const store = "operations_files_full";
    const stock = await new Objm(used.stock).create(store, { max_bytes: 300 * kib } as object);
    await objectStores.put(store, "small", large(10 * kib), options);
    const error = await failureOf("nats_failed", () => objectStores.put(store, "f", large(1024 * kib), options));
    expect(error.message).toContain("maximum bytes exceeded");
    await eventually("the chunks are gone", async () => (await stock.status()).streamInfo.state.messages === 2);
    await failureOf("file_missing", () => objectStores.info(store, "f", options));
    await objectStores.get(store, "small", reading);
  });

  slowIt("leaves no chunk if a put is past its deadline when its chunks are stored", async () => {
    // Both answers have to arrive within it.
    await withEnoughTime(3_000, async (timeoutMs) => {
      await using server = await startNatsServer({ jetStream: true });
      await using used = await operationsOf(server.url);
      const { objectStores } = used.operations;
      const stock = await new Objm(used.stock).create("s");
      await objectStores.put("s", "f", bytesOf(1), options);
      // Two answers come: for the look-up, and for the chunk. That one comes after the deadline, and before the library gives
      // it up, which begins to wait when it sends the chunk.
      let arrived = 0;
      let passLate = (): void => undefined;
      interceptArrivals(used, (pass) => {
        if (++arrived === 1) setTimeout(pass, timeoutMs / 2);
        else if (arrived === 2) passLate = pass;
        else pass();
      });
      await failureOf("nats_timeout", () => objectStores.put("s", "f", bytesOf(2), { timeoutMs }));
      if (arrived < 2) return undefined;
      passLate();
      await eventually("a purge was asked for", async () => (await stock.status()).streamInfo.state.last_seq >= 3);
      await eventually("the chunk is gone", async () => (await stock.status()).streamInfo.state.messages === 2);
      return true;
    });
  });

  it("leaves no chunk of the version before if the record is stored and its answer lost", async () => {
    // The answers have to arrive within it.
    await withEnoughTime(1_500, async (timeoutMs) => {
      await using server = await startNatsServer({ jetStream: true });
      await using used = await operationsOf(server.url);
      const { objectStores } = used.operations;
      await objectStores.put("s", "f", large(400 * kib), options);
      const stock = await new Objm(used.stock).open("s");
      // Three answers come for the put: for the look-up, the chunk and the record. The last one is lost.
      let arrived = 0;
      interceptArrivals(used, (pass) => {
        if (++arrived !== 3) pass();
      });
      const error = await failureOf("nats_timeout", () => objectStores.put("s", "f", bytesOf(3), { timeoutMs }));
      if (arrived < 3) return undefined;
      expect(error.outcome).toBe("unknown");
      await eventually("one chunk and one record are left", async () => {
        return (await stock.status()).streamInfo.state.messages === 2;
      });
      expect([...(await objectStores.get("s", "f", reading))]).toEqual([...bytesOf(3)]);
      return true;
    });
  });

  it("ends by its deadline if the server hangs, and when it dies", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using used = await operationsOf(server.url, { pingInterval: 60_000 });
    const { objectStores } = used.operations;
    const content = large(8 * kib * kib);
    await objectStores.put("s", "f", content, options);
    await hang(server, used);
    const short = { ...reading, timeoutMs: 150 };
    const put = await failureOf("nats_timeout", () => objectStores.put("s", "g", content, short));
    expect(put.outcome).toBe("unknown");
    await failureOf("nats_timeout", () => objectStores.get("s", "f", short));
    await failureOf("nats_timeout", () => objectStores.list("s", short));
    server.signal("SIGCONT");
    await used.operations.flush(options);
    const long = { ...reading, timeoutMs: 60_000 };
    const failures = [
      failureOf("outcome_unknown", () => objectStores.put("s", "g", large(64 * kib * kib), long)),
      failureOf("nats_unavailable", () => objectStores.get("s", "f", long)),
    ];
    await server.kill();
    await Promise.all(failures);
  });

  it("dies in the middle of an upload, and what was there before is still read", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using used = await operationsOf(server.url);
    const { objectStores } = used.operations;
    await objectStores.put("s", "f", bytesOf(100), options);
    const manager = await jetstreamManager(used.stock);
    const failure = failureOf("outcome_unknown", () =>
      objectStores.put("s", "f", large(64 * kib * kib), { timeoutMs: 60_000 }),
    );
    await eventually("the upload is under way", async () => (await manager.streams.info("OBJ_s")).state.messages > 5);
    await server.kill();
    await failure;
    await server.restart();
    await using again = await operationsOf(server.url);
    expect([...(await again.operations.objectStores.get("s", "f", reading))]).toEqual([...bytesOf(100)]);
  });
});
