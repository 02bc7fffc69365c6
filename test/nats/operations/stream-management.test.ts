import { type JetStreamManager, jetstreamManager } from "@nats-io/jetstream";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { startNatsServer } from "../../support/nats-server.js";
import { failureOf, type Operations, operationsOf, timeoutMs } from "./operations-of.js";

let used: Operations;
let manager: JetStreamManager;
beforeAll(async () => {
  used = await operationsOf(inject("natsUrl"));
  manager = await jetstreamManager(used.stock);
});
afterAll(() => used?.[Symbol.asyncDispose]());

const place = { timeoutMs };
const configOf = async (stream: string) => (await manager.streams.info(stream)).config;

describe("streamManagement.create(", () => {
  it("makes a stream in files, without limits, where nothing else is said", async () => {
    const { streamManagement } = used.operations;
    await streamManagement.create("managed_plain", { subjects: ["managed.plain"] }, place);
    expect(await configOf("managed_plain")).toMatchObject({
      ...{ subjects: ["managed.plain"], storage: "file", retention: "limits", discard: "old", num_replicas: 1 },
      ...{ max_age: 0, max_msgs: -1, max_bytes: -1, max_msg_size: -1, duplicate_window: 120_000e6 },
    });
  });

  it("leaves a stream with the same settings as it is, and refuses other settings", async () => {
    const { streamManagement } = used.operations;
    const settings = { subjects: ["managed.same"], maxMessages: 10n };
    await streamManagement.create("managed_same", settings, place);
    await streamManagement.create("managed_same", settings, place);
    const error = await failureOf("nats_failed", () =>
      streamManagement.create("managed_same", { ...settings, maxMessages: 11n }, place),
    );
    expect(error.message).toMatch(/^NATS refused the creation of stream "managed_same": stream name already in use/);
    expect(error.detail).toMatch(/err_code 10058/);
    expect((await configOf("managed_same")).max_msgs).toBe(10);
  });

  it("has the replicas of the options, or its own, and the error says where they are set", async () => {
    const { streamManagement } = used.operations;
    const create = (replicas?: number) =>
      streamManagement.create(
        "managed_replicas",
        { subjects: ["managed.replicas"], replicas },
        { ...place, replicas: 3 },
      );
    const error = await failureOf("nats_failed", () => create());
    expect(error.message).toMatch(/with replicas '3'/);
    await create(1);
    expect((await configOf("managed_replicas")).num_replicas).toBe(1);
  });
});

describe("the subjects of a stream", () => {
  it.each(["_INBOX.>", "_INBOX.*.>", "*.hawser.*.*", "*.*.x", "_INBOX.hawser.>", "_INBOX.hawser.x", ">"])(
    "are not those of replies to Hawser itself: %s",
    async (subject) => {
      const { streamManagement } = used.operations;
      const subjects = ["managed.inbox", subject];
      const made = await failureOf("invalid_argument", () =>
        streamManagement.create("managed_inbox", { subjects }, place),
      );
      expect(made.message).toContain(`the subject "${subject}" matches "_INBOX.hawser.>"`);
      await failureOf("invalid_argument", () => streamManagement.update("managed_inbox", { subjects }, place));
    },
  );

  it.each(["_INBOX.hawsers.>", "_INBOX.*", "managed.*.>", "_INBOX.x.*"])("may be others: %s", async (subject) => {
    const { streamManagement } = used.operations;
    await streamManagement.create("managed_inbox", { subjects: [subject] }, place);
    await streamManagement.delete("managed_inbox", place);
  });
});

describe("streamManagement.update(", () => {
  it("changes what is given, and keeps what it has no name for", async () => {
    await manager.streams.add({
      ...{ name: "managed_update", subjects: ["managed.update"], max_age: 3_600_000e6 },
      ...{ description: "of others", max_consumers: 7, allow_direct: true, metadata: { owner: "shop" } },
    });
    const before = await configOf("managed_update");
    const changes = { subjects: ["managed.update", "managed.more"], maxBytes: 1_000n, discard: "new" };
    await used.operations.streamManagement.update("managed_update", changes, place);
    expect(await configOf("managed_update")).toEqual({
      ...before,
      ...{ subjects: changes.subjects, max_bytes: 1_000, discard: "new" },
    });
  });

  it("fails where the stream is missing, and makes none", async () => {
    const error = await failureOf("no_stream", () =>
      used.operations.streamManagement.update("managed_missing", { maxBytes: 1n }, place),
    );
    expect(error.message).toBe('The update of stream "managed_missing" failed: there is no such stream.');
    await expect(manager.streams.info("managed_missing")).rejects.toThrow("stream not found");
  });
});

describe("streamManagement.delete(", () => {
  it("deletes a stream with its messages, and does nothing without one", async () => {
    await manager.streams.add({ name: "managed_delete", subjects: ["managed.delete"] });
    await used.operations.streamManagement.delete("managed_delete", place);
    await expect(manager.streams.info("managed_delete")).rejects.toThrow("stream not found");
    await used.operations.streamManagement.delete("managed_delete", place);
  });
});

describe("streamManagement.list(", () => {
  it("has all streams, also more than one answer of JetStream has, in the order of their names", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using own = await operationsOf(server.url);
    const { streamManagement } = own.operations;
    expect(await streamManagement.list(place)).toEqual([]);
    const streams = (await jetstreamManager(own.stock)).streams;
    const names = Array.from({ length: 300 }, (_, nth) => `s${nth}`);
    for (const name of names) await streams.add({ name, subjects: [`s.${name}`], storage: "memory" as never });
    await own.stock.request("s.s7", "hello", { timeout: timeoutMs });
    const listed = await streamManagement.list(place);
    expect(listed.map(({ stream }) => stream)).toEqual(names.sort());
    expect(listed.find(({ stream }) => stream === "s7")).toMatchObject({ messages: 1n, firstSeq: 1n, lastSeq: 1n });
  });

  it("shows what no text of Postgres can hold by another character", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using own = await operationsOf(server.url);
    await (await jetstreamManager(own.stock)).streams.add({ name: "odd", subjects: ["odd\0.a"] });
    const [row] = await own.operations.streamManagement.list(place);
    expect(row?.subjects).toEqual(["odd\ufffd.a"]);
  });
});

it("a user without the right is told so", async () => {
  const config = `authorization { users: [
    { user: all, password: x }
    { user: some, password: x, permissions: { publish: { deny: ["$JS.API.STREAM.>"] } } }
  ] }`;
  await using server = await startNatsServer({ jetStream: true, config });
  const user = (name: string) => ({ user: name, pass: "x" });
  await using own = await operationsOf(server.url, user("some"), user("all"));
  const { streamManagement } = own.operations;
  await (await jetstreamManager(own.stock)).streams.add({ name: "guarded", subjects: ["guarded"] });
  for (const work of [
    () => streamManagement.create("new", { subjects: ["new"] }, place),
    () => streamManagement.update("guarded", { maxBytes: 1n }, place),
    () => streamManagement.delete("guarded", place),
    () => streamManagement.list(place),
  ]) {
    await failureOf("nats_permission_denied", work);
  }
});
