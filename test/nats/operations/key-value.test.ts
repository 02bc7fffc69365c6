import { jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { HawserError } from "../../../src/foundation/errors/index.js";
import { startNatsServer } from "../../support/nats-server.js";
import { bytesOf, failureOf, hang, type Operations, operationsOf, timeoutMs } from "./operations-of.js";

const options = { timeoutMs };
const reading = { timeoutMs, maxBytes: 1_000_000 };

/** Tries again with twice the time where it was too short for the server to answer. */
async function inTime<T>(timeoutMs: number, work: (timeoutMs: number) => Promise<T>): Promise<T> {
  try {
    return await work(timeoutMs);
  } catch (error) {
    if (!(error instanceof HawserError && error.code === "nats_timeout") || timeoutMs > 60_000) throw error;
    return inTime(2 * timeoutMs, work);
  }
}

/** On the server of the run. */
let used: Operations;
beforeAll(async () => {
  used = await operationsOf(inject("natsUrl"));
});
afterAll(() => used?.[Symbol.asyncDispose]());

describe.concurrent("put and get of a value", () => {
  it("create the bucket on the first put, with the defaults of the client", async () => {
    const { keyValue } = used.operations;
    expect(await keyValue.put("operations_kv_made", "k", bytesOf(1), options)).toBe(1n);
    await new Kvm(used.stock).create("operations_kv_stock");
    const manager = await jetstreamManager(used.stock);
    const { config: ours } = await manager.streams.info("KV_operations_kv_made");
    const { config: theirs } = await manager.streams.info("KV_operations_kv_stock");
    expect({ ...ours, name: "", subjects: [] }).toEqual({ ...theirs, name: "", subjects: [] });
    expect(ours.storage).toBe("file");
    expect(ours.max_msgs_per_subject).toBe(1);
  });

  it("leave the settings of a bucket that exists", async () => {
    const stock = await new Kvm(used.stock).create("operations_kv_history", { history: 5 });
    for (let round = 0; round < 3; round++) {
      await used.operations.keyValue.put("operations_kv_history", "k", bytesOf(round), options);
    }
    const revisions: number[] = [];
    for await (const { revision } of await stock.history({ key: "k" })) revisions.push(revision);
    expect(revisions).toEqual([1, 2, 3]);
  });

  it("create a bucket once if many sessions put at the same time", async () => {
    const { keyValue } = used.operations;
    const puts = Array.from({ length: 50 }, (_, index) =>
      keyValue.put("operations_kv_race", `k${index}`, bytesOf(index), options),
    );
    const revisions = await Promise.all(puts);
    expect(new Set(revisions).size).toBe(50);
  });

  it("go on after the bucket was deleted, or made again, by others", async () => {
    const { keyValue } = used.operations;
    const bucket = "operations_kv_gone";
    await keyValue.put(bucket, "k", bytesOf(1), options);
    await keyValue.put(bucket, "k", bytesOf(2), options);
    await (await new Kvm(used.stock).open(bucket)).destroy();
    expect(await keyValue.get(bucket, "k", options)).toBeUndefined();
    expect(await keyValue.put(bucket, "k", bytesOf(3), options)).toBe(1n);
    await (await new Kvm(used.stock).open(bucket)).destroy();
    await new Kvm(used.stock).create(bucket);
    expect(await keyValue.put(bucket, "k", bytesOf(4), options)).toBe(1n);
    expect(await keyValue.get(bucket, "k", options)).toEqual(bytesOf(4));
  });

  it("create the bucket too if another client subscribes to everything, so that silence does not tell that it is missing", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using used = await operationsOf(server.url);
    used.stock.subscribe(">", { callback: () => undefined });
    await used.stock.flush();
    expect(await used.operations.keyValue.put("watched", "k", bytesOf(1), options)).toBe(1n);
  });
});

describe.concurrent("put if another client subscribes to all keys, so that a missing bucket shows only as silence", () => {
  it("creates a bucket again that others have deleted, in the time of the call", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using used = await operationsOf(server.url);
    const { keyValue } = used.operations;
    await keyValue.put("gone", "k", bytesOf(1), options);
    used.stock.subscribe("$KV.>", { callback: () => undefined });
    await used.stock.flush();
    await (await new Kvm(used.stock).open("gone")).destroy();
    expect(await keyValue.put("gone", "k", bytesOf(2), { timeoutMs: 10_000 })).toBe(1n);
    expect(await keyValue.get("gone", "k", options)).toEqual(bytesOf(2));
  });

  it.each([
    ["and may ask for it", '"$KV.b.>", "$JS.API.STREAM.INFO.>"', undefined, timeoutMs],
    // It takes the whole time of the call.
    ["and may not ask for it either", '"$KV.b.>"', "unknown", 1_000],
  ] as const)(
    "is nats_permission_denied for a user who may not make it, %s",
    async (_case, allowed, outcome, limitMs) => {
      await using server = await startNatsServer({
        jetStream: true,
        config: `authorization { users: [
        { user: admin, password: p },
        { user: u, password: p, permissions: { publish: { allow: [${allowed}] }, subscribe: { allow: ["_INBOX.>"] } } }
      ] }`,
      });
      await using used = await operationsOf(server.url, { user: "u", pass: "p" }, { user: "admin", pass: "p" });
      used.stock.subscribe(">", { callback: () => undefined });
      await used.stock.flush();
      const error = await failureOf("nats_permission_denied", () =>
        inTime(limitMs, (timeoutMs) => used.operations.keyValue.put("b", "k", bytesOf(1), { timeoutMs })),
      );
      expect(error.message).toContain('put of key "k" into bucket "b"');
      expect(error.detail).toMatch(/\$JS\.API\.STREAM\.(CREATE|INFO)\.KV_b/);
      expect(error.outcome).toBe(outcome);
    },
  );
});

describe("create and update", () => {
  it("create makes the bucket, and is key_exists if there is a value", async () => {
    const { keyValue } = used.operations;
    const bucket = "operations_kv_create";
    expect(await keyValue.create(bucket, "k", bytesOf(1), options)).toBe(1n);
    const error = await failureOf("key_exists", () => keyValue.create(bucket, "k", bytesOf(2), options));
    expect(error.message).toContain('creation of key "k" in bucket "operations_kv_create"');
    expect(error.detail).toBe("Its revision is 1.");
    expect(await keyValue.get(bucket, "k", options)).toEqual(bytesOf(1));
  });

  it.each(["delete", "purge"] as const)("create takes a key again after %s", async (method) => {
    const { keyValue } = used.operations;
    const bucket = `operations_kv_again_${method}`;
    await keyValue.put(bucket, "k", bytesOf(1), options);
    await (await new Kvm(used.stock).open(bucket))[method]("k");
    expect(await keyValue.create(bucket, "k", bytesOf(2), options)).toBe(3n);
    expect(await keyValue.get(bucket, "k", options)).toEqual(bytesOf(2));
    await failureOf("key_exists", () => keyValue.create(bucket, "k", bytesOf(3), options));
  });

  it("create succeeds for one of many at the same time, new or deleted", async () => {
    const { keyValue } = used.operations;
    const bucket = "operations_kv_first";
    for (const _ of ["new", "deleted"]) {
      const all = Array.from({ length: 20 }, (_, nth) => keyValue.create(bucket, "k", bytesOf(nth), options));
      const outcomes = await Promise.allSettled(all);
      const failed = outcomes.flatMap((one) => (one.status === "rejected" ? [one.reason.code] : []));
      expect(failed).toEqual(Array.from({ length: 19 }, () => "key_exists"));
      await keyValue.delete(bucket, "k", options);
    }
  });

  it("update replaces the revision that it names, and no other", async () => {
    const { keyValue } = used.operations;
    const bucket = "operations_kv_update";
    const first = await keyValue.put(bucket, "k", bytesOf(1), options);
    expect(await keyValue.update(bucket, "k", bytesOf(2), first, options)).toBe(first + 1n);
    const error = await failureOf("wrong_revision", () => keyValue.update(bucket, "k", bytesOf(3), first, options));
    expect(error.message).toContain('update of key "k" in bucket "operations_kv_update"');
    expect(error.message).toContain("the key's revision is not 1");
    expect(await keyValue.get(bucket, "k", options)).toEqual(bytesOf(2));
  });

  it("update is wrong_revision without the key, after its deletion, and without the bucket, which it does not make", async () => {
    const { keyValue } = used.operations;
    const bucket = "operations_kv_no_update";
    const update = (key: string) => keyValue.update(bucket, key, bytesOf(1), 1n, options);
    const error = await failureOf("wrong_revision", () => update("k"));
    expect(error.detail).toBe("the bucket is missing");
    const manager = await jetstreamManager(used.stock);
    await expect(manager.streams.info(`KV_${bucket}`)).rejects.toThrow("stream not found");
    await keyValue.put(bucket, "k", bytesOf(1), options);
    await failureOf("wrong_revision", () => update("other"));
    await keyValue.delete(bucket, "k", options);
    await failureOf("wrong_revision", () => update("k"));
  });

  it("counts right if many add one to a value by its revision", async () => {
    const { keyValue } = used.operations;
    const bucket = "operations_kv_count";
    await keyValue.create(bucket, "k", Buffer.from("0"), options);
    const add = async (): Promise<void> => {
      for (;;) {
        const [last] = (await keyValue.history(bucket, "k", reading)).slice(-1);
        const next = Buffer.from(`${Number(Buffer.from(last!.value!).toString()) + 1}`);
        try {
          await keyValue.update(bucket, "k", next, last!.revision, options);
          return;
        } catch (error) {
          expect(error).toMatchObject({ code: "wrong_revision" });
        }
      }
    };
    await Promise.all(Array.from({ length: 10 }, add));
    expect(Buffer.from((await keyValue.get(bucket, "k", options))!).toString()).toBe("10");
  });
});

describe("keys and history", () => {
  it("are the keys with a value, sorted, and nothing if the bucket is missing or empty", async () => {
    const { keyValue } = used.operations;
    const bucket = "operations_kv_keys";
    expect(await keyValue.keys(bucket, reading)).toEqual([]);
    const stock = await new Kvm(used.stock).create(bucket);
    expect(await keyValue.keys(bucket, reading)).toEqual([]);
    for (const key of ["b", "a.c", "a", "Z", "deleted", "purged"]) await stock.put(key, "v");
    await stock.put("b", "again");
    await stock.delete("deleted");
    await stock.purge("purged");
    expect(await keyValue.keys(bucket, reading)).toEqual(["Z", "a", "a.c", "b"]);
  });

  it("are more keys than come at once", async () => {
    const { keyValue } = used.operations;
    const bucket = "operations_kv_many";
    const puts = Array.from({ length: 1_200 }, (_, nth) => keyValue.put(bucket, `k.${nth}`, bytesOf(1), options));
    await Promise.all(puts);
    expect(await keyValue.keys(bucket, reading)).toHaveLength(1_200);
  });

  it("are the revisions that the bucket keeps, with what was done and when", async () => {
    const { keyValue } = used.operations;
    const bucket = "operations_kv_revisions";
    expect(await keyValue.history(bucket, "k", reading)).toEqual([]);
    const stock = await new Kvm(used.stock).create(bucket, { history: 3 });
    expect(await keyValue.history(bucket, "k", reading)).toEqual([]);
    for (const value of ["first", "second", ""]) await stock.put("k", value);
    await stock.put("k.other", "v");
    await stock.delete("k");
    const history = await keyValue.history(bucket, "k", reading);
    const created = expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/);
    expect(history.map(({ value, ...rest }) => ({ ...rest, value: value && Buffer.from(value).toString() }))).toEqual([
      { revision: 2n, operation: "PUT", value: "second", created },
      { revision: 3n, operation: "PUT", value: "", created },
      { revision: 5n, operation: "DEL", value: undefined, created },
    ]);
    await stock.purge("k");
    expect((await keyValue.history(bucket, "k", reading)).map(({ operation }) => operation)).toEqual(["PURGE"]);
  });

  it("are gateway_limit beyond the bytes that an answer has room for", async () => {
    const { keyValue } = used.operations;
    const bucket = "operations_kv_large";
    await new Kvm(used.stock).create(bucket, { history: 2 });
    for (const _ of [1, 2]) await keyValue.put(bucket, "k".repeat(60), bytesOf(60), options);
    await keyValue.put(bucket, "l".repeat(60), bytesOf(1), options);
    const small = { ...options, maxBytes: 100 };
    await failureOf("gateway_limit", () => keyValue.keys(bucket, small));
    await failureOf("gateway_limit", () => keyValue.history(bucket, "k".repeat(60), small));
    expect(await keyValue.history(bucket, "l".repeat(60), small)).toHaveLength(1);
  });
});

describe.concurrent("failures of key-value", () => {
  it("is payload_too_large beyond the bucket's own limit", async () => {
    const { keyValue } = used.operations;
    await new Kvm(used.stock).create("operations_kv_small", { maxValueSize: 100 });
    const error = await failureOf("payload_too_large", () =>
      keyValue.put("operations_kv_small", "k", bytesOf(200), options),
    );
    expect(error.detail).toContain("err_code 10054");
  });

  it("is nats_failed with the server's text if a bucket is full", async () => {
    await new Kvm(used.stock).create("operations_kv_full", { max_bytes: 1_000 });
    const error = await failureOf("nats_failed", () =>
      used.operations.keyValue.put("operations_kv_full", "k", bytesOf(2_000), options),
    );
    expect(error.message).toContain("maximum bytes exceeded");
    expect(error.detail).toContain("err_code 10077");
  });

  it("is nats_permission_denied if the user may not, and names bucket and key", async () => {
    await using server = await startNatsServer({
      jetStream: true,
      config: `authorization { users: [
        { user: admin, password: p },
        { user: u, password: p, permissions: { publish: { deny: ["$KV.closed.>"] } } }
        { user: none, password: p, permissions: { publish: { deny: ["$JS.>", "$KV.>"] } } }
      ] }`,
    });
    await using used = await operationsOf(server.url, { user: "u", pass: "p" }, { user: "admin", pass: "p" });
    const { keyValue } = used.operations;
    await (await new Kvm(used.stock).create("closed")).put("k", "v");
    const error = await failureOf("nats_permission_denied", () => keyValue.put("closed", "k", bytesOf(1), options));
    expect(error.message).toContain('put of key "k" into bucket "closed"');
    expect(await keyValue.get("closed", "k", options)).toEqual(new Uint8Array(Buffer.from("v")));
    await failureOf("nats_permission_denied", () => keyValue.delete("closed", "k", options));
    await using none = await operationsOf(server.url, { user: "none", pass: "p" });
    await failureOf("nats_permission_denied", () => none.operations.keyValue.get("closed", "k", options));
    await failureOf("nats_permission_denied", () => none.operations.keyValue.put("closed", "k", bytesOf(1), options));
  });

  it("needs no right but those to the keys, once the bucket exists", async () => {
    await using server = await startNatsServer({
      jetStream: true,
      config: `authorization { users: [
        { user: admin, password: p },
        { user: u, password: p, permissions: {
          publish: { allow: ["$KV.b.>", "$JS.API.DIRECT.GET.KV_b.>"] }, subscribe: { allow: ["_INBOX.>"] } } }
      ] }`,
    });
    await using used = await operationsOf(server.url, { user: "u", pass: "p" }, { user: "admin", pass: "p" });
    const { keyValue } = used.operations;
    await failureOf("nats_permission_denied", () => keyValue.put("b", "k", bytesOf(1), options));
    await failureOf("nats_permission_denied", () => keyValue.get("b", "k", options));
    await new Kvm(used.stock).create("b");
    expect(await keyValue.get("b", "k", options)).toBeUndefined();
    expect(await keyValue.put("b", "k", bytesOf(5), options)).toBe(1n);
    expect([...(await keyValue.get("b", "k", options))!]).toEqual([...bytesOf(5)]);
    await keyValue.delete("b", "k", options);
    expect(await keyValue.get("b", "k", options)).toBeUndefined();
  });

  it("is nats_permission_denied for who may only read directly, if only silence shows that the bucket is missing", async () => {
    await using server = await startNatsServer({
      jetStream: true,
      config: `authorization { users: [
        { user: admin, password: p },
        { user: u, password: p, permissions: {
          publish: { allow: ["$KV.b.>", "$JS.API.DIRECT.GET.KV_b.>"] }, subscribe: { allow: ["_INBOX.>"] } } }
      ] }`,
    });
    await using used = await operationsOf(server.url, { user: "u", pass: "p" }, { user: "admin", pass: "p" });
    used.stock.subscribe("$JS.API.DIRECT.>");
    await used.stock.flush();
    await failureOf("nats_permission_denied", () => used.operations.keyValue.get("b", "k", { timeoutMs: 1_000 }));
  });

  it("is not_supported if the server knows no headers", async () => {
    await using server = await startNatsServer({ config: "no_header_support: true" });
    await using used = await operationsOf(server.url);
    await failureOf("not_supported", () => used.operations.keyValue.get("b", "k", options));
  });

  it("refuses keys and buckets that cannot be before they are sent", async () => {
    const { keyValue } = used.operations;
    for (const key of ["", "a b", "a\r\nb", ".a", "a.", "a*"]) {
      await failureOf("invalid_argument", () => keyValue.put("operations_kv_keys", key, bytesOf(1), options));
      await failureOf("invalid_argument", () => keyValue.get("operations_kv_keys", key, options));
      await failureOf("invalid_argument", () => keyValue.get(`a${key}.b c`, "k", options));
    }
  });

  it("ends by its deadline if the server hangs, and when it dies", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using used = await operationsOf(server.url, { pingInterval: 60_000 });
    const { keyValue } = used.operations;
    await keyValue.put("b", "k", bytesOf(1), options);
    await hang(server, used);
    const short = { timeoutMs: 150 };
    const put = await failureOf("nats_timeout", () => keyValue.put("b", "k", bytesOf(1), short));
    expect(put.outcome).toBe("unknown");
    const get = await failureOf("nats_timeout", () => keyValue.get("b", "k", short));
    expect(get.outcome).toBeUndefined();
    const long = { timeoutMs: 60_000 };
    const failures = [
      failureOf("outcome_unknown", () => keyValue.put("b", "k", bytesOf(1), long)),
      failureOf("nats_unavailable", () => keyValue.get("b", "k", long)),
      failureOf("outcome_unknown", () => keyValue.delete("b", "k", long)),
    ];
    await server.kill();
    await Promise.all(failures);
    await failureOf("nats_unavailable", () => keyValue.put("b", "k", bytesOf(1), long));
  });
});
