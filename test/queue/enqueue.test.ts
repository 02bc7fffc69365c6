/**
 * The functions that enqueue: what they refuse, and that they work wherever a statement does.
 */
import { randomBytes } from "node:crypto";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { enqueuingFunctions, parametersOf } from "../gateway/functions/reference-table.js";
import {
  type NatsRead,
  type NatsTurn,
  natsTurn,
  type Position,
  type ReadMessage,
  takeNats,
} from "../outbox/support/turns.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { slowIt } from "../support/slow-it.js";
import { enqueuedMessages } from "./support/enqueued.js";

/** A role of this run alone: roles are of the whole server. */
const enqueuer = `enqueuer_${randomBytes(6).toString("hex")}`;

let gateway: TestGateway;
let client: pg.Client;
beforeAll(async () => {
  // No NATS server is defined: what is enqueued stays where it can be looked at.
  gateway = await testGateway({ serverOptions: false });
  ({ client } = gateway);
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** Reads the enqueued messages, the oldest first. */
async function enqueued(subject: string): Promise<Record<string, unknown>[]> {
  const { rows } = await client.query(
    `SELECT id, convert_from(payload, 'UTF8') AS text, key, headers, message_id, to_stream, domain, to_all, origin
       FROM ${enqueuedMessages} AS m WHERE destination = $1 ORDER BY id`,
    [subject],
  );
  return rows;
}

const good: Readonly<Record<string, string>> = {
  topic: "'a.b'",
  subject: "'a.b'",
  stream: "true",
  headers: `'{"A": "1"}'::jsonb`,
  key: "'k'",
  // Another one for each message, or it would be that of one that waits.
  unique_key: "gen_random_uuid()::text",
  replaces: "true",
  while_running: "false",
  // With none before it, it is a message as any other.
  after: "'{}'::bigint[]",
  cancels: "true",
  message_id: "'id-1'",
  domain: "'hub'",
  deliver_at: "NULL",
  to_all: "true",
  // None goes with a key.
  priority: "NULL",
  attempts: "3",
};
const payloads = { text: "'1'", json: "'1'::json", jsonb: "'1'::jsonb", bytea: "'1'::bytea" };

/** The overloads, each with what it is in a test's name. */
const overloads = enqueuingFunctions.map((fn) => {
  const [, payload, third] = fn.parameters.split(", ").map((one) => one.split(" ")[1]!);
  const type = payload!.replace("[]", "") as keyof typeof payloads;
  const isBatch = fn.name === "enqueue_batch";
  const isForNats = third === "boolean";
  const isUnique = fn.name === "enqueue_unique";
  return { ...fn, is: `${fn.name} of ${type} for ${isForNats ? "NATS" : "peers"}`, type, isBatch, isForNats, isUnique };
});
type Overload = (typeof overloads)[number];

/** A call with other arguments than good ones. */
function call({ name, parameters, result, type, isBatch }: Overload, other: Record<string, string> = {}): string {
  const payload = payloads[type];
  const given = parametersOf({ name, parameters, result }).map(
    (parameter) =>
      other[parameter.name] ?? good[parameter.name] ?? (isBatch ? `ARRAY[${payload}, ${payload}]` : payload),
  );
  return `SELECT hawser.${name}(${given.join(", ")}) AS id`;
}

describe("each overload", () => {
  it.each(overloads)("$is writes its arguments, and returns the ids in order", async (fn) => {
    const destination = fn.is.replaceAll(" ", ".");
    const to = { subject: `'${destination}'`, topic: `'${destination}'` };
    const [{ id }] = (await client.query(call(fn, to))).rows;
    const [{ id: next }] = (
      await client.query(call(fn, { ...to, stream: "false", message_id: "NULL", domain: "NULL" }))
    ).rows;
    const key = fn.isUnique ? null : "k";
    const given = [
      ["A", "1"],
      ["message-attempts", "3"],
    ];
    const row = fn.isForNats
      ? { headers: { A: "1" }, message_id: fn.isBatch ? null : "id-1", to_stream: true, domain: "hub", to_all: false }
      : {
          headers: [...given, ...(fn.isBatch ? [] : [["message-id", "id-1"]])],
          message_id: null,
          to_stream: false,
          domain: null,
          to_all: !fn.isUnique,
        };
    const second = fn.isForNats
      ? { ...row, message_id: null, to_stream: false, domain: null }
      : { ...row, headers: given };
    const ids = [id, next].flat();
    const wanted = fn.isBatch ? [row, row, second, second] : [row, second];
    expect(await enqueued(destination)).toEqual(
      wanted.map((one, nth) => ({ id: ids[nth], text: "1", key, origin: null, ...one })),
    );
    expect(ids).toEqual([...ids].sort((one, other) => Number(one) - Number(other)));
  });

  it.each(overloads)("$is requires only its destination and payload", async (fn) => {
    const given = parametersOf(fn).flatMap(({ name, hasDefault }) =>
      hasDefault ? [] : [good[name] ?? (fn.isBatch ? `ARRAY[${payloads[fn.type]}]` : payloads[fn.type])],
    );
    given[0] = `'alone.${fn.type}'`;
    await client.query(`SELECT hawser.${fn.name}(${given.join(", ")})`);
    const row = { text: "1", key: null, headers: null, message_id: null, domain: null, to_all: false };
    expect((await enqueued(`alone.${fn.type}`)).at(-1)).toMatchObject({ ...row, to_stream: fn.isForNats });
  });

  const bad: Readonly<Record<string, readonly [values: readonly string[], rule: RegExp]>> = {
    subject: [["", "a b", "a..b", "a.*", ">", "x".repeat(1025)], /words joined by '\.'|1 to 1024 bytes/],
    topic: [["", "a:b", "a\nb", "x".repeat(256)], /must not contain ':'|1 to 255 bytes/],
    key: [["", "x".repeat(1025), "a\nb"], /1 to 1024 bytes|control characters/],
    unique_key: [["", "x".repeat(1025), "a\nb"], /1 to 1024 bytes|control characters/],
    message_id: [["", "a b", "a\nb", "x".repeat(256)], /must not contain white space|1 to 255 bytes/],
    domain: [["", "a.b", "*"], /must be a JetStream domain|1 to 255 bytes/],
  };

  it.each(overloads)("$is refuses invalid arguments with the value and the rule", async (fn) => {
    const names = parametersOf(fn).map(({ name }) => name);
    for (const [parameter, [values, rule]] of Object.entries(bad)) {
      if (!names.includes(parameter)) continue;
      for (const value of values) {
        // With and without what makes a call no plain one.
        for (const others of [{}, { headers: "NULL::jsonb", message_id: "NULL", domain: "NULL", to_all: "NULL" }]) {
          const error = await gateway.errorOf(call(fn, { ...others, [parameter]: "$1" }), [value]);
          expect(error, `${parameter} ${JSON.stringify(value)}`).toMatchObject({
            code: "22023",
            message: expect.stringMatching(rule),
            hint: expect.stringMatching(/^Give an argument that obeys the rule/),
          });
          expect(error.message).toMatch(
            new RegExp(`^hawser\\.enqueue(_after|_batch|_unique)?: the argument ${parameter} is "`),
          );
          expect(error.message.length).toBeLessThan(600);
        }
      }
    }
  });

  it.each(overloads)("$is accepts arguments of maximum length", async (fn) => {
    const long = { subject: 1024, topic: 255, key: 1024, message_id: 255, domain: 255 };
    await client.query("BEGIN");
    for (const { name } of parametersOf(fn)) {
      const bytes = long[name as keyof typeof long];
      if (bytes !== undefined) await client.query(call(fn, { [name]: `repeat('x', ${bytes})` }));
    }
    await client.query("ROLLBACK");
  });

  it.each(overloads)("$is names the NULL argument", async (fn) => {
    for (const { name, hasDefault } of parametersOf(fn)) {
      if (hasDefault) continue;
      const list = fn.isBatch ? "[]" : "";
      const nothing = name.startsWith("payload")
        ? `NULL::${fn.type}${list}`
        : name === "stream"
          ? "NULL::boolean"
          : "NULL";
      const error = await gateway.errorOf(call(fn, { [name]: nothing }));
      expect(error, name).toMatchObject({
        code: "22004",
        message: `hawser.${fn.name}: the argument ${name} is NULL, and needs a value`,
      });
      // A message for a peer is never empty, so that no hint proposes it.
      if (!fn.isForNats) expect(error.hint, name).not.toContain("''");
    }
  });

  it.each(overloads.filter(({ isBatch }) => isBatch))(
    "$is refuses a NULL among the payloads, and takes none",
    async (fn) => {
      expect(await gateway.errorOf(call(fn, { payloads: `ARRAY[${payloads[fn.type]}, NULL]` }))).toMatchObject({
        code: "22004",
        message: "hawser.enqueue_batch: the argument payloads is NULL, and needs a value",
      });
      const none = { payloads: `'{}'::${fn.type}[]`, subject: "'nothing'", topic: "'nothing'" };
      expect((await client.query(call(fn, none))).rows).toEqual([{ id: [] }]);
      expect(await enqueued("nothing")).toEqual([]);
    },
  );

  it.each(overloads.filter(({ isForNats }) => isForNats))(
    "$is accepts ids and domains for streams only",
    async (fn) => {
      for (const name of fn.isBatch ? ["domain"] : ["message_id", "domain"]) {
        const others = { message_id: "NULL", domain: "NULL", [name]: good[name]! };
        expect(await gateway.errorOf(call(fn, { stream: "false", ...others }))).toMatchObject({
          code: "22023",
          message: expect.stringMatching(new RegExp(`the argument ${name} is "(id-1|hub)", and needs stream => true$`)),
        });
      }
    },
  );

  it.each(overloads.filter(({ isForNats, type }) => !isForNats && !type.startsWith("json")))(
    "$is refuses an empty payload, and a topic that is reserved",
    async (fn) => {
      const empty = fn.isBatch ? `ARRAY['1', '']::${fn.type}[]` : `''::${fn.type}`;
      expect(await gateway.errorOf(call(fn, { payload: empty, payloads: empty }))).toMatchObject({
        code: "22023",
        message: "a payload for a peer has 0 bytes, and must have 1 to 67108864",
      });
      for (const others of [{}, { headers: "NULL::jsonb", message_id: "NULL", to_all: "NULL" }]) {
        expect(await gateway.errorOf(call(fn, { ...others, topic: "'__#a'" }))).toMatchObject({
          message: 'the topic "__#a" begins with __#, which is reserved',
        });
      }
    },
  );

  it.each(overloads.filter(({ isForNats }) => !isForNats))(
    "$is takes a priority in its range, for messages without a key",
    async (fn) => {
      for (const priority of ["-32768", "32767"]) await client.query(call(fn, { key: "NULL", priority }));
      for (const priority of ["-32769", "32768"])
        expect(await gateway.errorOf(call(fn, { key: "NULL", priority }))).toMatchObject({ code: "22023" });
      if (fn.isUnique) return;
      expect(await gateway.errorOf(call(fn, { priority: "1" }))).toMatchObject({
        code: "22023",
        message: "the argument priority is 1, and a message with a key has none: those of a key are handled in order",
      });
    },
  );
});

describe("overload resolution", () => {
  const bytes = async (sql: string, values: unknown[] = []) => {
    const { rows } = await client.query(sql, values);
    const [id] = [Object.values(rows[0])[0]].flat();
    const found = await client.query(
      `SELECT convert_from(payload, 'UTF8') AS text, to_stream FROM ${enqueuedMessages} AS m WHERE id = $1`,
      [id],
    );
    return [found.rows[0].text, found.rows[0].to_stream];
  };

  it("chooses text for a literal or an untyped parameter, and otherwise the overload of the type", async () => {
    const json = '{"a" : 1}';
    for (const [payload, text] of [
      ["$1", json],
      ["$1::text", json],
      ["$1::varchar", json],
      ["$1::json", json],
      ["$1::jsonb", '{"a": 1}'],
      ["$1::text::bytea", json],
    ]) {
      expect(await bytes(`SELECT hawser.enqueue('t', ${payload})`, [json]), payload).toEqual([text, false]);
      expect(await bytes(`SELECT hawser.enqueue('t', ${payload}, true)`, [json]), payload).toEqual([text, true]);
    }
    expect(await bytes(`SELECT hawser.enqueue('t', '${json}')`)).toEqual([json, false]);
    expect(await bytes("SELECT hawser.enqueue_batch('t', ARRAY['1', '2'])")).toEqual(["1", false]);
    expect(await bytes("SELECT hawser.enqueue_batch('t', ARRAY['1', '2'], true)")).toEqual(["1", true]);
  });

  it("chooses text for a prepared statement of a driver, also by the order of the arguments", async () => {
    const session = await gateway.connect();
    const ask = async (text: string, values: unknown[]) => (await session.query({ name: text, text, values })).rows;
    for (const [text, ...values] of [
      ["SELECT hawser.enqueue($1, $2)", "t", "x"],
      ["SELECT hawser.enqueue($1, $2, key => $3)", "t", "x", "k"],
      ["SELECT hawser.enqueue($1, $2, headers => $3, to_all => $4)", "t", "x", '{"a": "b"}', true],
      ["SELECT hawser.enqueue($1, $2, stream => $3)", "t", "x", true],
      ["SELECT hawser.enqueue($1, $2, true, $3, $4, $5, $6, $7)", "t", "x", null, null, "m", "d", null],
      ["SELECT hawser.enqueue($1, $2, $3::jsonb, $4, $5, $6, $7)", "t", "x", null, null, "m", null, true],
      ["SELECT hawser.enqueue_batch($1, $2::text[], key => $3)", "t", ["x"], "k"],
    ] as const) {
      expect(await ask(text, values), text).toHaveLength(1);
    }
    await session.end();
  });

  it("reports an ambiguity between headers and stream, or between arrays", async () => {
    const ambiguous = { code: "42725", message: expect.stringMatching(/^function hawser\.enqueue.* is not unique$/) };
    expect(await gateway.errorOf("SELECT hawser.enqueue('t', 'x', NULL)")).toMatchObject(ambiguous);
    expect(await gateway.errorOf("SELECT hawser.enqueue('t', 'x', $1)", [null])).toMatchObject(ambiguous);
    expect(await gateway.errorOf("SELECT hawser.enqueue_batch('t', $1)", [["x"]])).toMatchObject(ambiguous);
    expect(await gateway.errorOf("SELECT hawser.enqueue_batch('t', '{}')")).toMatchObject(ambiguous);
  });
});

it.each([
  ["[]", /must be a JSON object, and this is array/],
  ['{"a": ["x", null]}', /"a" must be a string or an array of strings, and has null/],
  ['{"a": "x\\r\\nb: y"}', /value of "a" must not have CR or LF/],
  ['{"a b": "x"}', /name "a b" must be printable ASCII/],
  ['{"nats-msg-id": "x"}', /"nats-msg-id" is set by Hawser; give message_id instead/],
])("headers %s are refused", async (headers, rule) => {
  expect(
    await gateway.errorOf("SELECT hawser.enqueue('a', 'x', stream => false, headers => $1)", [headers]),
  ).toMatchObject({
    code: "22023",
    message: expect.stringMatching(rule),
  });
});

it("the rules also apply to a caller with standard_conforming_strings = off", async () => {
  const client = await gateway.connect();
  await client.query("SET standard_conforming_strings = off");
  await client.query("SET escape_string_warning = off");
  const refused = (sql: string, ...values: unknown[]) => expect(client.query(sql, values)).rejects.toThrow(/must/);
  await refused("SELECT hawser.enqueue('a', 'x', stream => false, headers => $1)", { A: "a\r\nB: c" });
  await refused("SELECT hawser.enqueue('a', 'x', headers => $1)", { A: "a\nb" });
  await refused("SELECT hawser.outbox_replay(now(), $1)", "orders placed");
  const replay = "SELECT hawser.outbox_replay(now(), $1)::integer AS replayed";
  for (const subject of ["orders.placed", "orders.*", "$s.>"]) {
    expect((await client.query(replay, [subject])).rows).toEqual([{ replayed: 0 }]);
  }
  await client.end();
});

it("too many headers for a peer are refused", async () => {
  const many = "(SELECT jsonb_build_object('A', jsonb_agg('v'::text)) FROM generate_series(1, 40000))";
  const refused = await gateway.errorOf(`SELECT hawser.enqueue('a', 'x', headers => ${many})`);
  expect(refused).toMatchObject({ code: "22023", message: expect.stringContaining("an object with 40000 values") });
});

describe("a message can be enqueued", () => {
  it("by a trigger, a function, and a DO block", async () => {
    await client.query(`
      CREATE TABLE orders (id integer);
      CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        PERFORM hawser.enqueue('wherever', 'trigger ' || NEW.id, stream => false, key => 'k');
        RETURN NEW;
      END $$;
      CREATE TRIGGER tell AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell();
      INSERT INTO orders VALUES (1);
      DO $$ BEGIN PERFORM hawser.enqueue('wherever', 'block', stream => false, key => 'k'); END $$;
    `);
    expect((await enqueued("wherever")).map(({ text }) => text)).toEqual(["trigger 1", "block"]);
  });

  it.each(["REPEATABLE READ", "SERIALIZABLE"])("under %s, also behind another one of its key", async (isolation) => {
    const other = await gateway.connect();
    const subject = `isolated.${isolation.replace(" ", "_")}`;
    // A role's first message with a key makes its buckets, which a transaction that began before cannot lock.
    await client.query("SELECT hawser.enqueue('isolated', 'before', stream => false, key => 'k')");
    await other.query("BEGIN");
    await other.query("SELECT hawser.enqueue($1, 'first', stream => false, key => 'k')", [subject]);
    await client.query(`BEGIN ISOLATION LEVEL ${isolation}`);
    await client.query("SELECT count(*) FROM pg_class");
    const waiting = client.query("SELECT hawser.enqueue($1, 'second', stream => false, key => 'k')", [subject]);
    await other.query("COMMIT");
    await waiting;
    await client.query("COMMIT");
    expect((await enqueued(subject)).map(({ text }) => text)).toEqual(["first", "second"]);
    await other.end();
  });

  const ownTables = ["outbox", "outbox_0", "outbox_turns", "queue", "outbox_state"];
  const asPeer = "hawser.enqueue_peer('t', ARRAY['x'::bytea], NULL, NULL, NULL, NULL, NULL, NULL, 'a-1:a', NULL)";

  it("by a role with only hawser_nats, which can read and write nothing else", async () => {
    await client.query(`CREATE ROLE ${enqueuer}; GRANT hawser_nats TO ${enqueuer}; SET ROLE ${enqueuer}`);
    try {
      for (const fn of overloads.filter(({ isForNats }) => isForNats)) await client.query(call(fn));
      for (const denied of [
        ...overloads.filter(({ isForNats }) => !isForNats).map((fn) => call(fn)),
        ...ownTables.map((table) => `SELECT * FROM hawser_data.${table}`),
        `SELECT ${asPeer}`,
        "SELECT FROM hawser_data.enqueue_keys FOR UPDATE",
        "SELECT * FROM hawser_data.outbox_state_asleep_seq",
        "SELECT nextval('hawser_data.outbox_state_segment_seq')",
        "SELECT hawser.enqueue_message('nats', 'a b', ARRAY['x'::bytea], NULL, NULL, NULL, false, NULL, NULL, NULL, false, NULL, 0::smallint)",
        "SELECT hawser.enqueue_nats('a b', ARRAY['x'::bytea], true, NULL, NULL, NULL, NULL, NULL)",
        "SELECT hawser.lock_key('a', 'k')",
        "SELECT hawser.outbox_take('x', NULL)",
        "SELECT hawser.outbox_rotate('x', 0)",
      ]) {
        expect(await gateway.errorOf(denied), denied).toMatchObject({ code: "42501" });
      }
    } finally {
      await client.query(`RESET ROLE; DROP OWNED BY ${enqueuer}; DROP ROLE ${enqueuer}`);
    }
  });

  it("by a role with only hawser_peer, for topics only, also as a peer", async () => {
    await client.query(`CREATE ROLE ${enqueuer}; GRANT hawser_peer TO ${enqueuer}; SET ROLE ${enqueuer}`);
    try {
      for (const fn of overloads.filter(({ isForNats }) => !isForNats)) await client.query(call(fn));
      await client.query(`SELECT ${asPeer}`);
      for (const fn of overloads.filter(({ isForNats }) => isForNats)) {
        expect(await gateway.errorOf(call(fn)), fn.is).toMatchObject({
          code: "42501",
          message: `permission denied for function ${fn.name}`,
        });
      }
    } finally {
      await client.query(`RESET ROLE; DROP OWNED BY ${enqueuer}; DROP ROLE ${enqueuer}`);
    }
  });

  it("by a role that may execute one overload, which cannot act as a peer, and can cancel its own messages", async () => {
    const others = (
      await client.query("SELECT hawser.enqueue('t', 'x', deliver_at => now() + interval '1 hour') AS id")
    ).rows[0].id;
    await client.query(`CREATE ROLE ${enqueuer}; GRANT USAGE ON SCHEMA hawser TO ${enqueuer};
      GRANT EXECUTE ON FUNCTION hawser.enqueue(text, text, jsonb, text, text, timestamptz, boolean, integer, integer), hawser.cancel(bigint) TO ${enqueuer};
      SET ROLE ${enqueuer}`);
    try {
      const { rows } = await client.query(
        "SELECT hawser.enqueue('by.role', 'x', key => 'k') AS id, hawser.enqueue('by.role', 'y', deliver_at => now() + interval '1 hour') AS later",
      );
      const [{ later }] = rows;
      for (const denied of [
        "SELECT hawser.enqueue('by.role', '1'::jsonb)",
        "SELECT hawser.enqueue('by.role', 'x', stream => false)",
        "SELECT hawser.enqueue_batch('by.role', ARRAY['x'])",
        `SELECT ${asPeer}`,
        ...ownTables.map((table) => `SELECT * FROM hawser_data.${table}`),
      ]) {
        expect(await gateway.errorOf(denied), denied).toMatchObject({ code: "42501" });
      }
      const headers = `'{"message-origin": "a-1:a:postgres"}'`;
      expect(await gateway.errorOf(`SELECT hawser.enqueue('by.role', 'x', headers => ${headers})`)).toMatchObject({
        code: "22023",
        message: 'headers: "message-origin" is set by Hawser; leave it out.',
      });
      const cancel = async (one: string) => (await client.query("SELECT hawser.cancel($1) AS is", [one])).rows[0].is;
      expect([await cancel(others), await cancel(later), await cancel(later)]).toEqual([
        "not_waiting",
        "cancelled",
        "not_waiting",
      ]);
    } finally {
      await client.query(`RESET ROLE; DROP OWNED BY ${enqueuer}; DROP ROLE ${enqueuer}`);
    }
    expect((await client.query("SELECT hawser.cancel($1) AS is", [others])).rows).toEqual([{ is: "cancelled" }]);
    const { rows } = await client.query(
      `SELECT role, origin FROM ${enqueuedMessages} AS m WHERE destination = 'by.role'`,
    );
    expect(rows).toEqual([{ role: enqueuer, origin: null }]);
  });

  it("but not in a read-only transaction", async () => {
    await client.query("BEGIN READ ONLY");
    expect(await gateway.errorOf("SELECT hawser.enqueue('a', 'x', stream => false)")).toMatchObject({ code: "25006" });
    await client.query("ROLLBACK");
  });
});

describe("the relay's functions", () => {
  /** In a database of its own, as the role that the login of `hawser serve` has. */
  async function asBridge(): Promise<{ other: TestGateway; session: pg.Client }> {
    const other = await testGateway({ serverOptions: false });
    onTestFinished(() => other[Symbol.asyncDispose]());
    // Nobody else relays.
    await other.serve.stop();
    const session = await other.connect();
    onTestFinished(() => session.end());
    await session.query("SET ROLE hawser_bridge");
    return { other, session };
  }

  const poll = ({ from }: Position): NatsRead => ({ kind: "poll", from });
  const texts = ({ messages }: NatsTurn) => messages.map(({ text }) => text);

  it("find committed messages once, for the relay that has taken over last", async () => {
    const { other, session } = await asBridge();
    const { turn, position } = await takeNats(session, "first");
    await other.client.query("SELECT hawser.enqueue('a', 'one', stream => false)");
    const first = { turn: turn + 1n, position, read: poll(position) };
    const found = await natsTurn(session, "first", first);
    expect([found.state, texts(found), found.rest]).toEqual(["saved", ["one"], []]);
    expect(await natsTurn(session, "first", first)).toMatchObject({ state: "repeated", messages: [] });
    await takeNats(session, "second");
    const late = { ...first, turn: turn + 2n, mustSave: true };
    expect(await natsTurn(session, "first", late)).toMatchObject({ state: "lost", messages: [] });
  });

  it("limit a page by its headers as well as its payloads", async () => {
    const { other, session } = await asBridge();
    const { turn, position } = await takeNats(session, "one");
    await other.client.query(
      "SELECT hawser.enqueue_batch('a', ARRAY['1', '2'], stream => false, headers => (SELECT jsonb_object_agg(n, repeat('x', 60000)) FROM generate_series(1, 10) AS n))",
    );
    const found = await natsTurn(session, "one", { turn: turn + 1n, position, read: poll(position) });
    expect(texts(found)).toEqual(["1"]);
    const [{ role }] = found.messages as [ReadMessage];
    expect(found.rest).toEqual([expect.objectContaining({ role, route: null })]);
    const page = { kind: "page", role, from: position.from, to: found.to, after: found.messages[0]!.id } as const;
    const next = await natsTurn(session, "one", { turn: turn + 2n, position, read: page });
    expect([texts(next), next.hasMore]).toEqual([["2"], false]);
  });

  it("omit the payload of a message that NATS would refuse, and return its length", async () => {
    const { other, session } = await asBridge();
    const { turn, position } = await takeNats(session, "one");
    await other.client.query(
      "SELECT hawser.enqueue('a', repeat('x', 2000000), stream => false), hawser.enqueue('a', 'y', stream => false)",
    );
    const step = { turn: turn + 1n, position, read: poll(position), maxPayload: 1_000 };
    const { messages } = await natsTurn(session, "one", step);
    expect(messages).toMatchObject([
      { payload: null, bytes: "2000000" },
      { text: "y", bytes: "1" },
    ]);
  });

  slowIt("do not scan all waiting messages for a first page", async () => {
    const { other, session } = await asBridge();
    const { turn, position } = await takeNats(session, "one");
    await other.client.query(`INSERT INTO hawser_data.outbox (segment, destination, payload, message_id, to_stream)
      SELECT 0, 'a', convert_to(n::text, 'UTF8'), n::text, false FROM generate_series(1, 150000) AS n`);
    await session.query("BEGIN");
    const found = await natsTurn(session, "one", { turn: turn + 1n, position, read: poll(position) });
    expect(texts(found)).toEqual(Array.from({ length: 1000 }, (_, nth) => `${nth + 1}`));
    const read = async (): Promise<number> => {
      const sum =
        "SELECT sum(idx_tup_fetch)::integer AS read FROM pg_stat_xact_user_tables WHERE relname ~ '^outbox_[0-2]$'";
      return (await session.query(sum)).rows[0].read;
    };
    const first = await read();
    // Who has more in the set is asked for all of it, once.
    expect(first).toBeLessThan(270_000);
    const page = {
      kind: "page",
      role: found.messages[0]!.role,
      from: position.from,
      to: found.to,
      after: found.messages.at(-1)!.id,
    } as const;
    expect(texts(await natsTurn(session, "one", { turn: turn + 2n, position, read: page }))).toHaveLength(1000);
    expect((await read()) - first).toBeLessThan(2_000);
    await session.query("ROLLBACK");
  });

  it("truncate a segment exactly when all its messages are done, and not while it is written", async () => {
    const { other, session } = await asBridge();
    let { turn, position } = await takeNats(session, "one");
    const rotate = async (): Promise<boolean> =>
      (await session.query("SELECT rotated FROM hawser.outbox_rotate('one', 0)")).rows[0].rotated;
    const count = (): Promise<number> => other.value("SELECT count(*)::integer FROM hawser_data.outbox");
    const allDone = async (): Promise<void> => {
      position = { ...position, from: await other.value<string>("SELECT pg_current_snapshot()::text") };
      turn += 1n;
      await natsTurn(session, "one", { turn, position, mustSave: true });
    };
    await other.client.query("SELECT hawser.enqueue('a', 'one', stream => false)");
    // The other two are empty.
    expect([await rotate(), await rotate(), await rotate()]).toEqual([true, true, false]);
    expect(await count()).toBe(1);
    await allDone();
    const writer = await other.connect();
    await writer.query(
      "BEGIN; INSERT INTO hawser_data.outbox_0 (segment, destination, payload, message_id, to_stream) VALUES (0, 'a', 'x', 'late', false)",
    );
    expect(await rotate()).toBe(false);
    await writer.query("COMMIT");
    await writer.end();
    expect(await rotate()).toBe(false);
    await allDone();
    expect(await rotate()).toBe(true);
    expect(await count()).toBe(0);
    expect(await other.value("SELECT count(*)::integer FROM hawser_data.outbox_turns")).toBe(1);
  });

  it("are refused to roles that are not members of hawser_bridge", async () => {
    const { other } = await asBridge();
    await other.client.query("SET SESSION AUTHORIZATION hawser_peer");
    const refused = (fn: string) => ({ code: "42501", message: expect.stringContaining(`for function ${fn}`) });
    expect(await other.errorOf("SELECT hawser.outbox_take('x', NULL)")).toMatchObject(refused("outbox_take"));
    expect(await other.errorOf("SELECT hawser.outbox_rotate('x', 0)")).toMatchObject(refused("outbox_rotate"));
    const position = { from: "3:3:", to: null, after: "0", series: [], skipped: [] };
    await expect(natsTurn(other.client, "x", { turn: 2n, position, read: poll(position) })).rejects.toMatchObject(
      refused("outbox_turn_nats"),
    );
    await other.client.query("RESET SESSION AUTHORIZATION");
  });
});
