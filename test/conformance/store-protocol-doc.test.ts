/**
 * docs/store-protocol.md says all that a peer may call, and a peer with no more rights than `hawser_peer` can do it.
 */
import { readFileSync } from "node:fs";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { messageChannel as ownMessageChannel } from "../../src/jobs-and-peers/store/notifications.js";
import { login } from "../installation/support/logins.js";
import { enqueue } from "../queue/support/test-worker.js";
import { testDatabase } from "../support/database.js";
import { statement, statements } from "./peer/statements.js";
import { ForeignStore, messageChannel } from "./peer/store.js";

const page = readFileSync(new URL("../../docs/store-protocol.md", import.meta.url), "utf8");
const peerSources = ["store.ts", "statements.ts"].map((file) =>
  readFileSync(new URL(`./peer/${file}`, import.meta.url), "utf8"),
);

/** Statements that the foreign peer has no use for; they are run below. */
const runHere = ["keep-name", "server", "fence", "lanes-left"];
const ofWorkers = [
  ...[
    "open-worker",
    "extend-worker",
    "rest-worker",
    "resume-worker",
    "take",
    "done",
    "retry",
    "give-up",
    "give-back",
    "begin",
    "end-cancelled",
    "begin-unique",
    "done-batch",
    "set-progress",
  ],
  ...["close-worker", "wait-for", "stop-waiting"],
];

describe("docs/store-protocol.md", () => {
  it("has no statement that nobody runs", () => {
    const unused = [...statements.keys()].filter(
      (name) =>
        ![...runHere, ...ofWorkers].includes(name) && !peerSources.some((source) => source.includes(`"${name}"`)),
    );
    expect(unused).toEqual([]);
    expect(statements.size).toBeGreaterThanOrEqual(27);
  });

  it("names constants that exist", () => {
    const named = [...page.matchAll(/`(\w+(?:Ms|Rows|Bytes))`/g)].map(([, name]) => name!);
    const known = [...Object.keys(storeConstants), "ackTimeoutMs"];
    expect(named.filter((name) => !known.includes(name))).toEqual([]);
  });

  it("names a listener's notification channel as the peers do", () => {
    for (const name of ["orders-1", "請求書", "n".repeat(255)]) {
      expect(messageChannel(name)).toBe(ownMessageChannel(name));
    }
  });

  it("lets a worker without TCP take, handle, put off, give up, give back and cancel, with the rights of a peer", async () => {
    await using database = await testDatabase();
    await using role = await login(database.url, "IN ROLE hawser_peer");
    const operator = new pg.Client({ connectionString: database.url });
    const session = new pg.Client({ connectionString: role.url });
    await Promise.all([operator.connect(), session.connect()]);
    const rows = async (name: string, ...values: unknown[]) => (await session.query(statement(name), values)).rows;
    try {
      await enqueue(operator, "t", ["a", "b", "c", "d", "e", "f"]);
      const [{ worker: first }] = await rows("open-worker", "w", ["t"], null, 60_000, 1, null);
      const worker = 2 ** 53 - 1;
      expect(await rows("resume-worker", first, worker, [], [], [], [])).toEqual([{ ranks: [] }]);
      expect(await rows("extend-worker", worker)).toMatchObject([{ gone_workers: [], cancelled: [] }]);
      expect(await rows("rest-worker", worker)).toEqual([{ rests: true }]);
      const found = await rows("take", worker, 100, 1_000_000, "{}", []);
      const taken = found.filter(({ payload }) => payload !== null);
      expect(found.length - taken.length).toBe(1);
      const [a, b, c, d, e, f] = taken.map(({ topic, recipient, role: of, rank }) => [topic, recipient, of, rank]);
      expect(taken.map(({ payload }) => payload.toString())).toEqual(["a", "b", "c", "d", "e", "f"]);
      expect(await rows("done", ...a!)).toEqual([{ ended: true }]);
      await expect(rows("done", ...a!)).rejects.toMatchObject({ code: "NA009" });
      expect(await rows("done-batch", ...f!.map((part) => [part]), false, `[["${f![3]}", 5, "{}"]]`)).toEqual([
        { ended: true },
      ]);
      expect(await rows("retry", worker, ...b!, 60_000, null)).toEqual([{ ranks: [b![3]] }]);
      expect(await rows("give-up", worker, ...c!, "failed", "no", null, null)).toMatchObject([{}]);
      expect(await rows("begin", worker, ...d!.map((part) => [part]))).toEqual([{ ranks: [d![3]] }]);
      expect(await rows("give-back", worker, ...d!.map((part) => [part]), false)).toEqual([{ ranks: [d![3]] }]);
      expect(await rows("begin-unique", worker, ...e!)).toMatchObject([{ begins: true, payload: null }]);
      expect(await rows("set-progress", worker, ...e!, "1")).toEqual([{ written: false }]);
      await operator.query("SELECT hawser.cancel($1)", [e![3]]);
      expect(await rows("extend-worker", worker)).toMatchObject([{ cancelled: [e![3]] }]);
      expect(await rows("end-cancelled", worker, [e![3]])).toEqual([{ ranks: [e![3]] }]);
      expect(await rows("wait-for", ["t"])).toMatchObject([{ waits: true }]);
      expect(await rows("stop-waiting", ["t"])).toEqual([{ waited: true }]);
      expect(await rows("close-worker", worker)).toEqual([{ closed: true }]);
      await expect(rows("take", worker, 1, 1, "{}", [])).rejects.toMatchObject({ code: "NA008" });
    } finally {
      await Promise.all([operator.end(), session.end()]);
    }
  });

  it("asks for no more rights than a peer has, in the statements that no other test runs", async () => {
    await using database = await testDatabase();
    await using role = await login(database.url, "IN ROLE hawser_peer");
    await using store = await ForeignStore.open(role.url, "guest-1");
    const owned = ["guest-1", store.epoch];
    await store.register("guest", "127.0.0.1:1", () => undefined);
    // Another session, while that of the peer is alive.
    const session = new pg.Client({ connectionString: role.url });
    await session.connect();
    const rows = async (name: string, ...values: unknown[]) => (await session.query(statement(name), values)).rows;
    try {
      expect(await rows("server")).toEqual([{ server: expect.stringMatching(/^\d+:[0-9A-F]{8}$/) }]);
      const kept = { epoch: String(store.epoch), owned: true, in_use: true };
      expect(await rows("keep-name", ...owned, null, 17)).toEqual([kept]);
      expect(await rows("leave-directory", ...owned, false, false, ["guest"])).toEqual([{ held: true }]);
      expect(await store.listenersOf("guest")).toEqual([]);
      await session.query("BEGIN ISOLATION LEVEL READ COMMITTED");
      expect(await rows("fence", ...owned)).toEqual([{ held: true }]);
      await session.query("COMMIT");
      expect(await store.topicOfId(await store.idOfTopic("guest"))).toBe("guest");
      const { channel_id } = await store.openChannel("guest", "guest-1");
      expect(await store.ownedChannels()).toEqual([{ channelId: channel_id, cursor: { epoch: 0, number: 0 } }]);
      expect(await rows("lanes-left", ...owned, channel_id, ["=key"], ["guest"])).toEqual([
        { held: true, has_rows: false, lanes: [] },
      ]);
    } finally {
      await session.end();
    }
  });
});
