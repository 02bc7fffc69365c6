/**
 * Whose dead letters are: functions alone write them, and the members of their role retry and discard them.
 */
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { storeConstants } from "../../generated/ts/settings/peer.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { type Login, login } from "../installation/support/logins.js";
import { leave } from "../store/support/left-messages.js";
import { type World, world } from "../store/support/world.js";

const denied = "42501";
const refused = "22023";

let w: World;
let one: Login & AsyncDisposable;
let other: Login & AsyncDisposable;
let operator: Login & AsyncDisposable;
const sessions: pg.Client[] = [];

beforeAll(async () => {
  w = await world();
  one = await login(w.url, "IN ROLE hawser_peer");
  other = await login(w.url, "IN ROLE hawser_peer");
  operator = await login(w.url, "IN ROLE hawser_owner, hawser_peer");
  for (const topic of ["topic", "other"]) await w.store.idOfTopic(topic);
});
afterAll(async () => {
  for (const session of sessions) await session.end();
  for (const each of [one, other, operator]) await each?.[Symbol.asyncDispose]();
  await w?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  await w.operator.query("TRUNCATE hawser_data.dead_letters, hawser_data.queue");
});

async function session({ url }: Login): Promise<pg.Client> {
  const client = new pg.Client(url);
  client.on("error", () => undefined);
  await client.connect();
  sessions.push(client);
  return client;
}

/** Code of the error that a statement fails with; undefined if it succeeds. */
async function failure(client: pg.Client, text: string, values?: unknown[]): Promise<string | undefined> {
  return client.query(text, values).then(
    () => undefined,
    (error: pg.DatabaseError) => error.code,
  );
}

let listeners = 0;

/** A listener of this login has given messages up. @returns their ids */
async function givenUp({ url }: Login, count: number): Promise<number[]> {
  await using store = await openStore({ databaseUrl: url });
  const name = `listener-${(listeners += 1)}`;
  const lease = await store.takeName(name, { waitMs: 0 });
  const channelId = await store.openChannel({ name: "sender", sourceTopic: "source" }, name);
  const letter = { errorCode: "handler_failed", errorMessage: "no", attempts: 1, listener: name };
  const client = new pg.Client(url);
  await client.connect();
  await leave(client, lease, channelId, Array<typeof letter>(count).fill(letter));
  await client.end();
  const { rows } = await w.operator.query(
    "SELECT id::int FROM hawser_data.dead_letters WHERE channel_id = $1 ORDER BY id",
    [channelId],
  );
  return rows.map(({ id }) => id);
}

const columns = "origin, source, topic, payload, error_code, error_message, attempts, message_id";

/** Rows as a superuser can write them, for a role. */
async function planted(role: string, values: string): Promise<number> {
  const { rows } = await w.operator.query(
    `INSERT INTO hawser_data.dead_letters (${columns}, headers, role) VALUES (${values}, $1) RETURNING id::int`,
    [role],
  );
  return rows[0].id;
}

const outboxLetter = (subject: string, source = "'core'", messageId = "'id'", headers = "NULL") =>
  `'outbox', ${source}, ${subject}, 'forged', 'c', 'm', 1, ${messageId}, ${headers}`;

describe("the table", () => {
  it.each(["hawser_peer", "hawser_bridge"])("is written by no login in %s", async (role) => {
    const [id] = (await givenUp(one, 1)) as [number];
    await using stranger = await login(w.url, `IN ROLE ${role}`);
    const client = await session(stranger);
    const forged = outboxLetter("'forged'");
    expect(await failure(client, `INSERT INTO hawser_data.dead_letters (${columns}, headers) VALUES (${forged})`)).toBe(
      denied,
    );
    const copy = `INSERT INTO hawser_data.dead_letters (${columns}) SELECT ${columns} FROM hawser_data.dead_letters WHERE id = $1`;
    expect(await failure(client, copy, [id])).toBe(denied);
    expect(await failure(client, "UPDATE hawser_data.dead_letters SET topic = 'forged'")).toBe(denied);
    expect(await failure(client, "UPDATE hawser_data.dead_letters SET attempts = 0")).toBe(denied);
    expect(await failure(client, "DELETE FROM hawser_data.dead_letters")).toBe(denied);
    expect(await failure(client, "SELECT hawser.retry_enqueued($1)", [[id]])).toBe(denied);
    expect(await failure(client, "SELECT hawser.retry_subscribed($1)", [[id]])).toBe(denied);
    await client.end();
  });
});

describe("a dead letter", () => {
  it("belongs to the login of the listener, or to the role that it has set", async () => {
    const [id] = await givenUp(one, 1);
    expect(await w.store.deadLetters.get(id!)).toMatchObject({ origin: "queue", role: one.role });
    const url = new URL(one.url);
    url.searchParams.set("options", "-c role=hawser_peer");
    const [second] = await givenUp({ role: one.role, url: url.href }, 1);
    expect(await w.store.deadLetters.get(second!)).toMatchObject({ role: "hawser_peer" });
  });

  it("is retried, discarded and expired by a login of its role, and not by another peer", async () => {
    const ids = await givenUp(one, 3);
    const [first, second] = ids as [number, number];
    await w.operator.query(
      "UPDATE hawser_data.dead_letters SET created_at = now() - interval '40 days' WHERE id = $1",
      [ids[2]],
    );
    await using theirs = await openStore({ databaseUrl: other.url });
    const notTheirs = {
      ...{ id: first, outcome: "refused", code: "not_permitted" },
      message: expect.stringContaining("is not a member of"),
    };
    expect(await theirs.deadLetters.retry({ ids: [first] })).toEqual([notTheirs]);
    expect(await theirs.deadLetters.discard({ ids: [first] })).toEqual([notTheirs]);
    expect(await theirs.deadLetters.expire()).toBe(0);
    expect((await w.store.deadLetters.list()).map(({ id }) => id)).toEqual([...ids].reverse());

    await using own = await openStore({ databaseUrl: one.url });
    expect(await own.deadLetters.retry({ ids: [first] })).toMatchObject([{ id: first, outcome: "enqueued" }]);
    expect(await own.deadLetters.discard({ ids: [second] })).toEqual([{ id: second, outcome: "discarded" }]);
    expect(await own.deadLetters.expire()).toBe(1);
    expect(await w.store.deadLetters.list()).toEqual([]);
  });

  it("is retried and discarded by a member of the schema's owner, also when its role is gone", async () => {
    const [first, second] = (await givenUp(one, 2)) as [number, number];
    await w.operator.query("UPDATE hawser_data.dead_letters SET role = 'gone' WHERE id = $1", [second]);
    await using store = await openStore({ databaseUrl: operator.url });
    expect(await store.deadLetters.retry({ ids: [first] })).toMatchObject([{ id: first, outcome: "enqueued" }]);
    expect(await store.deadLetters.discard({ ids: [second] })).toEqual([{ id: second, outcome: "discarded" }]);
  });

  it("of the outbox is not enqueued again by a peer that does not own it", async () => {
    const id = await planted(one.role, outboxLetter("'forged'"));
    const client = await session(other);
    expect((await client.query("SELECT id::int, refused FROM hawser.retry_dead_letters($1)", [[id]])).rows).toEqual([
      { id, refused: "owner" },
    ]);
    expect((await w.operator.query("SELECT FROM hawser_data.outbox")).rows).toEqual([]);
  });

  it.each([
    ["a subject with a wildcard", outboxLetter("'a.*'")],
    ["a subject with a control character", outboxLetter("E'a\\rb'")],
    ["a subject with white space", outboxLetter("'a b'")],
    ["a subject that is too long", outboxLetter("repeat('x', 1025)")],
    ["no subject", outboxLetter("''")],
    ["a domain that is several words", outboxLetter("'a'", "'dom*.>'")],
    ["an id with a line break", outboxLetter("'a'", "'core'", "E'id\\r\\nNats-Expected-Stream: S'")],
    ["an id that is too long", outboxLetter("'a'", "'core'", "repeat('i', 256)")],
    ["no id", outboxLetter("'a'", "'core'", "NULL")],
    ["headers that are no pairs", outboxLetter("'a'", "'core'", "'id'", `'{"a": "b"}'`)],
    ["a header that is no text", outboxLetter("'a'", "'core'", "'id'", "'[[1, 2]]'")],
    ["a header with a line break", outboxLetter("'a'", "'core'", "'id'", String.raw`'[["a", "b\r\nc: d"]]'`)],
    ["a header of its own", outboxLetter("'a'", "'core'", "'id'", `'[["Nats-Msg-Id", "b"]]'`)],
    ["the topic of no peer", "'queue', '', 'a:b', 'x', 'c', 'm', 1, NULL, NULL"],
    ["headers that no peer takes", `'queue', '', 'topic', 'x', 'c', 'm', 1, NULL, '[["a b", ""]]'`],
  ])("with %s is refused when it is retried, also to a superuser", async (_, values) => {
    const id = await planted(one.role, values);
    expect(await w.store.deadLetters.retry({ ids: [id] })).toMatchObject([
      { id, code: "invalid_argument", message: expect.stringContaining("not valid for a message") },
    ]);
    expect((await w.operator.query("SELECT FROM hawser_data.outbox")).rows).toEqual([]);
  });

  it.each(["retry_dead_letters", "discard_dead_letters"])("%s takes as many as a statement may", async (name) => {
    const ids = (count: number) => [Array.from({ length: count }, (_, index) => index + 1)];
    expect(await failure(w.operator, `SELECT hawser.${name}($1)`, ids(storeConstants.deadLetterRows))).toBeUndefined();
    expect(await failure(w.operator, `SELECT hawser.${name}($1)`, ids(storeConstants.deadLetterRows + 1))).toBe(
      refused,
    );
  });
});

describe("the function with which messages leave their channels", () => {
  it("takes only those of the listener", async () => {
    await using store = await openStore({ databaseUrl: one.url });
    const lease = await store.takeName("careful", { waitMs: 0 });
    const stranger = await w.take("somebody-else");
    const of = async (listener: string) => await store.openChannel({ name: "sender", sourceTopic: "source" }, listener);
    const [own, foreign] = [await of("careful"), await of("somebody-else")];
    const topicId = await w.store.idOfTopic("topic");
    const client = await session(one);
    const letter = { epoch: 1, number: 1, topic_id: topicId, lane: "", message_id: "p", payload_bytes: 1, headers: [] };
    const add = async (channelId: number, changes: object, epoch = lease.epoch) => {
      const error = { error_code: "e".repeat(300), error_message: "m", attempts: 1 };
      const left = JSON.stringify([{ ...letter, ...error, channel_id: channelId, ...changes }]);
      const text = "SELECT held, moved FROM hawser.commit_cursors($1, $2, $3, '{1}', '{1}', $4, $5)";
      const values = ["careful", epoch, [channelId], left, Buffer.from("x")];
      const result = await client.query(text, values).catch((error: pg.DatabaseError) => error);
      return result instanceof Error ? result.code : result.rows[0];
    };
    expect(await add(own, {}, lease.epoch - 1)).toMatchObject({ held: false });
    expect(await add(foreign, {})).toEqual({ held: true, moved: null });
    expect(await add(own, { channel_id: foreign })).toBe("22023");
    for (const changes of [
      ...[{ headers: { a: "b" } }, { headers: [["a"]] }, { headers: [["a b", ""]] }],
      ...[
        { headers: [["a", "\u0001"]] },
        { headers: [["n".repeat(256), ""]] },
        { headers: [["a", "v".repeat(16_777_216)]] },
      ],
      ...[{ payload_bytes: 2 }, { payload_bytes: -1 }],
    ]) {
      expect(await add(own, { number: 2, ...changes }), JSON.stringify(changes).slice(0, 80)).toBe(refused);
    }
    expect(await w.store.deadLetters.list()).toEqual([]);
    expect((await w.operator.query("SELECT FROM hawser_data.queue")).rows).toEqual([]);
    await stranger.release({ clean: true });
  });

  it("gives what it writes the role of the listener, and no origin or role that is given", async () => {
    await using store = await openStore({ databaseUrl: one.url });
    const lease = await store.takeName("forger", { waitMs: 0 });
    const channelId = await store.openChannel({ name: "sender", sourceTopic: "source" }, "forger");
    const client = await session(one);
    const forged: object = { origin: "outbox", source: "core", role: "hawser_owner", job_id: 1, recipient: "#group" };
    await leave(client, lease, channelId, [{ errorCode: "e".repeat(300), ...forged }, forged]);
    const sent = { origin: "queue", source: "", role: one.role, errorCode: "e".repeat(255), enqueuedBy: null };
    expect(await w.store.deadLetters.list()).toMatchObject([{ ...sent, sentAs: "sender:source:forger/7/1" }]);
    expect((await w.operator.query("SELECT recipient, role, origin FROM hawser_data.queue")).rows).toEqual([
      { recipient: "", role: one.role, origin: "sender:source" },
    ]);
    await lease.release({ clean: true });
  });

  it("makes no dead letter look like one that was enqueued, whatever the channel is called", async () => {
    await using store = await openStore({ databaseUrl: one.url });
    const lease = await store.takeName("liar", { waitMs: 0 });
    const channelId = await store.openChannel({ name: "__#outbox", sourceTopic: "__#outbox" }, "liar");
    const headers = [["message-origin", "::postgres"]] as const;
    await leave(await session(one), lease, channelId, [{ errorCode: "c", errorMessage: "m", attempts: 1, headers }]);
    expect(await store.deadLetters.list()).toMatchObject([
      { sentAs: "__#outbox:__#outbox:liar/7/1", enqueuedBy: null },
    ]);
    await lease.release({ clean: true });
  });
});
