import { createHash } from "node:crypto";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { headers } from "@nats-io/transport-node";
import { describe, expect, inject, it } from "vitest";
import type { FileInfo } from "../../../src/nats/operations/index.js";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { bytesOf, failureOf, hang, interceptArrivals, operationsOf, timeoutMs } from "./operations-of.js";

const options = { timeoutMs };
const reading = { timeoutMs, maxBytes: 128 * 1024 * 1024 };
const kib = 1024;

/** Larger than the tests' other content; cheaper to make. */
function large(length: number): Buffer {
  return Buffer.alloc(length, createHash("sha512").update(`${length}`).digest());
}

describe.concurrent("put and get of a file", () => {
  it.each([0, 1, 128 * kib, 128 * kib + 1, kib * kib])(
    "round-trip %d bytes, which a stock client reads too",
    async (size) => {
      await using used = await operationsOf(inject("natsUrl"));
      const { objectStores } = used.operations;
      const store = "operations_files_exact";
      const content = large(size);
      await objectStores.put(store, `f${size}`, content, options);
      expect(content.equals(await objectStores.get(store, `f${size}`, reading))).toBe(true);
      const stock = await new Objm(used.stock).open(store);
      expect(content.equals((await stock.getBlob(`f${size}`))!)).toBe(true);
      const info = (await stock.info(`f${size}`))!;
      expect(info.size).toBe(size);
      expect(info.chunks).toBe(Math.ceil(size / (128 * kib)));
      expect(info.digest).toBe(`SHA-256=${createHash("sha256").update(content).digest("base64url")}=`);
    },
  );

  it("read what a stock client has written", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const { objectStores } = used.operations;
    const stock = await new Objm(used.stock).create("operations_files_stock");
    for (const size of [0, 10, 300 * kib]) {
      await stock.putBlob({ name: "f" }, large(size));
      expect(large(size).equals(await objectStores.get("operations_files_stock", "f", reading))).toBe(true);
    }
  });

  it("take names in all of Unicode", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const { objectStores } = used.operations;
    const store = "operations_files_names";
    const names = ["a b/c.txt", "ä", "漢字", "\u{1f6f3}\n", "\u0000", "*.>", "??>~"];
    for (const name of names) await objectStores.put(store, name, Buffer.from(name), options);
    for (const name of names) {
      expect(Buffer.from(await objectStores.get(store, name, reading)).toString()).toBe(name);
      const subject = `$O.${store}.M.${Buffer.from(name).toString("base64url")}`;
      const padded = subject.padEnd(
        subject.length + ((4 - (Buffer.from(name).toString("base64url").length % 4)) % 4),
        "=",
      );
      const manager = await jetstreamManager(used.stock);
      const stored = await manager.streams.getMessage(`OBJ_${store}`, { last_by_subj: padded });
      expect(stored!.json<{ name: string }>().name).toBe(name);
    }
    const listed = await objectStores.list(store, reading);
    expect(listed.map(({ name }) => name).sort()).toEqual([...names].sort());
  });

  it("make the store on the first put, with the defaults of the client", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    await used.operations.objectStores.put("operations_files_made", "f", bytesOf(1), options);
    await new Objm(used.stock).create("operations_files_default");
    const manager = await jetstreamManager(used.stock);
    const { config: ours } = await manager.streams.info("OBJ_operations_files_made");
    const { config: theirs } = await manager.streams.info("OBJ_operations_files_default");
    expect({ ...ours, name: "", subjects: [] }).toEqual({ ...theirs, name: "", subjects: [] });
    expect(ours.storage).toBe("file");
  });

  it("replace a file, of which nothing is left", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const { objectStores } = used.operations;
    const store = "operations_files_replaced";
    for (const size of [400 * kib, 300 * kib, 200 * kib]) await objectStores.put(store, "f", large(size), options);
    expect(large(200 * kib).equals(await objectStores.get(store, "f", reading))).toBe(true);
    const { state } = await (await jetstreamManager(used.stock)).streams.info(`OBJ_${store}`);
    // Two chunks and the record.
    expect(state.messages).toBe(3);
  });

  it("keep one of many that are put at once, whole, and nothing of the others", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const { objectStores } = used.operations;
    const store = "operations_files_race";
    const sizes = Array.from({ length: 20 }, (_, index) => 200 * kib + index);
    await Promise.all(sizes.map((size) => objectStores.put(store, "f", large(size), options)));
    const { length } = await objectStores.get(store, "f", reading);
    expect(sizes).toContain(length);
    const { state } = await (await jetstreamManager(used.stock)).streams.info(`OBJ_${store}`);
    expect(state.messages).toBe(3);
  });

  it("read one version or the other while a file is being replaced", async () => {
    await using used = await operationsOf(inject("natsUrl"));
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
    await using used = await operationsOf(inject("natsUrl"));
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
    await using used = await operationsOf(inject("natsUrl"));
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
    await using used = await operationsOf(inject("natsUrl"));
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

  it("follow a link to a file, and make no store that a link names", async () => {
    await using used = await operationsOf(inject("natsUrl"));
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

describe.concurrent("what a store says of its files", () => {
  it("has the values of the columns", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const { objectStores } = used.operations;
    const store = "operations_files_info";
    const stock = await new Objm(used.stock).create(store);
    const given = headers();
    given.append("x-a", "1");
    given.append("x-a", "2");
    await stock.putBlob(
      { name: "rich", description: "ä", metadata: { m: "n" }, headers: given, options: { max_chunk_size: 4 } },
      bytesOf(10),
    );
    const seen = (await stock.info("rich"))!;
    const rich: FileInfo = {
      name: "rich",
      description: "ä",
      metadata: { m: "n" },
      headers: { "x-a": ["1", "2"] },
      options: { max_chunk_size: 4 },
      bucket: store,
      nuid: seen.nuid,
      size: 10n,
      chunks: 3n,
      modified: seen.mtime,
      digest: seen.digest,
      deleted: false,
    };
    expect(await objectStores.info(store, "rich", options)).toEqual(rich);
    await objectStores.put(store, "plain", bytesOf(1), options);
    const plain = await objectStores.info(store, "plain", options);
    expect(plain).toMatchObject({ description: "", metadata: undefined, headers: undefined, size: 1n, chunks: 1n });
    expect(Math.abs(Date.parse(plain.modified) - Date.now())).toBeLessThan(60_000);
    expect(await objectStores.list(store, reading)).toEqual([plain, rich]);
  });

  it("takes the time of the message where the record of another client has none", async () => {
    await using used = await operationsOf(inject("natsUrl"));
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
    await using used = await operationsOf(inject("natsUrl"));
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

  it("is nothing of what is missing or deleted, and makes no store", async () => {
    await using used = await operationsOf(inject("natsUrl"));
    const { objectStores } = used.operations;
    const none = "operations_files_none";
    expect(await objectStores.list(none, reading)).toEqual([]);
    const error = await failureOf("file_missing", () => objectStores.info(none, "f", options));
    expect(error.message).toContain('no file "f" in the object store "operations_files_none"');
    await failureOf("file_missing", () => objectStores.get(none, "f", reading));
    await objectStores.delete(none, "f", options);
    await expect((await jetstreamManager(used.stock)).streams.info(`OBJ_${none}`)).rejects.toThrow("stream not found");

    const store = "operations_files_deleted";
    await objectStores.put(store, "f", large(300 * kib), options);
    await objectStores.delete(store, "f", options);
    await objectStores.delete(store, "f", options);
    await objectStores.delete(store, "never there", options);
    await failureOf("file_missing", () => objectStores.info(store, "f", options));
    await failureOf("file_missing", () => objectStores.get(store, "f", reading));
    expect(await objectStores.list(store, reading)).toEqual([]);
    const stock = await new Objm(used.stock).open(store);
    expect((await stock.info("f"))!.deleted).toBe(true);
    expect(await stock.get("f")).toBeNull();
    // The record of the deletion alone: the chunks are gone.
    expect((await stock.status()).streamInfo.state.messages).toBe(1);
    await objectStores.put(store, "f", bytesOf(3), options);
    expect([...(await objectStores.get(store, "f", reading))]).toEqual([...bytesOf(3)]);
  });
});

describe.concurrent("failures of files", () => {
  it("is jetstream_unavailable without JetStream, and for a domain that nobody has", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    const { objectStores } = used.operations;
    for (const domain of [undefined, "nowhere"]) {
      const at = { ...reading, domain };
      await failureOf("jetstream_unavailable", () => objectStores.put("s", "f", bytesOf(1), at));
      await failureOf("jetstream_unavailable", () => objectStores.get("s", "f", at));
      await failureOf("jetstream_unavailable", () => objectStores.info("s", "f", at));
      await failureOf("jetstream_unavailable", () => objectStores.delete("s", "f", at));
      await failureOf("jetstream_unavailable", () => objectStores.list("s", at));
    }
  });

  it("reaches a domain by its name", async () => {
    await using server = await startNatsServer({ jetStream: true, config: "jetstream { domain: hub }" });
    await using used = await operationsOf(server.url);
    const { objectStores } = used.operations;
    const hub = { ...reading, domain: "hub" };
    await objectStores.put("s", "f", large(300 * kib), hub);
    expect(large(300 * kib).equals(await objectStores.get("s", "f", hub))).toBe(true);
    expect((await objectStores.list("s", hub)).length).toBe(1);
    await objectStores.delete("s", "f", hub);
    expect(await objectStores.list("s", hub)).toEqual([]);
  });

  it("is nats_permission_denied where the user may not, and names store and file", async () => {
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

  it("leaves no chunk where a store is full", async () => {
    await using used = await operationsOf(inject("natsUrl"));
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

  it("leaves no chunk where a put is past its deadline when its chunks are stored", async () => {
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
      if (++arrived === 1) setTimeout(pass, 500);
      else if (arrived === 2) passLate = pass;
      else pass();
    });
    await failureOf("nats_timeout", () => objectStores.put("s", "f", bytesOf(2), { timeoutMs: 3_000 }));
    expect(arrived).toBe(2);
    passLate();
    await eventually("a purge was asked for", async () => (await stock.status()).streamInfo.state.last_seq >= 3);
    await eventually("the chunk is gone", async () => (await stock.status()).streamInfo.state.messages === 2);
  });

  it("leaves no chunk of the version before where the record is stored and its answer lost", async () => {
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
    const error = await failureOf("nats_timeout", () => objectStores.put("s", "f", bytesOf(3), { timeoutMs: 3_000 }));
    expect(error.outcome).toBe("unknown");
    await eventually("one chunk and one record are left", async () => {
      return (await stock.status()).streamInfo.state.messages === 2;
    });
    expect([...(await objectStores.get("s", "f", reading))]).toEqual([...bytesOf(3)]);
  });

  it("uploads over a small max_payload", async () => {
    await using server = await startNatsServer({ jetStream: true, config: "max_payload: 4000" });
    await using used = await operationsOf(server.url);
    const { objectStores } = used.operations;
    await objectStores.put("s", "f", large(50_000), options);
    expect(large(50_000).equals(await objectStores.get("s", "f", reading))).toBe(true);
  });

  it("settles by its deadline where the server hangs, and when it dies under it", async () => {
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
