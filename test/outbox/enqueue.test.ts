/**
 * The functions that enqueue: what they refuse, and that they work wherever a statement does.
 */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { enqueuingFunctions, parametersOf } from "../gateway/functions/reference-table.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { type NatsRead, type NatsTurn, natsTurn, type Position, type ReadMessage, takeNats } from "./support/turns.js";

let gateway: TestGateway;
let client: pg.Client;
beforeAll(async () => {
  // No NATS server is defined: what is enqueued stays where it can be looked at.
  gateway = await testGateway({ serverOptions: false });
  ({ client } = gateway);
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** What there is, oldest first. */
async function enqueued(subject: string): Promise<Record<string, unknown>[]> {
  const { rows } = await client.query(
    `SELECT convert_from(payload, 'UTF8') AS text, key, headers, message_id, to_stream, domain
       FROM hawser.outbox WHERE destination = $1 ORDER BY id`,
    [subject],
  );
  return rows;
}

const family = (name: string): string => name.replace(/_(?:text|jsonb?|binary)(?=_|$)/, "_*");
const good: Readonly<Record<string, string>> = {
  subject: "'a.b'",
  headers: `'{"A": "1"}'::jsonb`,
  key: "'k'",
  message_id: "'id-1'",
  domain: "'hub'",
  deliver_at: "NULL",
};
const payloads = { text: "'1'", json: "'1'::json", jsonb: "'1'::jsonb", binary: "'1'::bytea" };

/** A call with other arguments than good ones. */
function call({ name, parameters }: (typeof enqueuingFunctions)[number], other: Record<string, string> = {}): string {
  const type = /_(text|jsonb?|binary)/.exec(name)![1] as keyof typeof payloads;
  const given = parametersOf({ name, parameters, result: "" }).map(
    (parameter) =>
      other[parameter.name] ??
      good[parameter.name] ??
      (parameter.name === "payload" ? payloads[type] : `ARRAY[${payloads[type]}, ${payloads[type]}]`),
  );
  return `SELECT ${name}(${given.join(", ")})`;
}

describe("each function", () => {
  it.each(enqueuingFunctions)("$name writes what it is given", async (fn) => {
    const subject = `written.${fn.name}`;
    await client.query(call(fn, { subject: `'${subject}'` }));
    const row = {
      text: "1",
      key: "k",
      headers: { A: "1" },
      message_id: /_stream$/.test(fn.name) ? "id-1" : expect.stringMatching(/^[0-9a-f-]{36}$/),
      to_stream: fn.name.includes("_stream"),
      domain: fn.name.includes("_stream") ? "hub" : null,
    };
    expect(await enqueued(subject)).toEqual(fn.name.endsWith("_batch") ? [row, row] : [row]);
  });

  const bad: Readonly<Record<string, readonly [values: readonly string[], rule: RegExp]>> = {
    subject: [["", "a b", "a..b", "a.*", ">", "x".repeat(1025)], /words joined by '\.'|1 to 1024 bytes/],
    key: [["", "x".repeat(1025)], /1 to 1024 bytes/],
    message_id: [["", "a b", "a\nb", "x".repeat(256)], /must not contain white space|1 to 255 bytes/],
    domain: [["", "a.b", "*"], /must be a JetStream domain|1 to 255 bytes/],
  };

  it.each(enqueuingFunctions)("$name refuses what breaks a rule, with the value and the rule", async (fn) => {
    for (const [parameter, [values, rule]] of Object.entries(bad)) {
      if (!parametersOf(fn).some(({ name }) => name === parameter)) continue;
      for (const value of values) {
        const error = await gateway.errorOf(call(fn, { [parameter]: "$1" }), [value]);
        expect(error, `${parameter} ${JSON.stringify(value)}`).toMatchObject({
          code: "22023",
          message: expect.stringMatching(rule),
          hint: expect.stringMatching(/^Give an argument that obeys the rule/),
        });
        expect(error.message).toContain(`${family(fn.name)}: the argument ${parameter} is "`);
        expect(error.message.length).toBeLessThan(600);
      }
    }
  });

  it.each(enqueuingFunctions)("$name says which argument is NULL", async (fn) => {
    for (const { name, hasDefault } of parametersOf(fn)) {
      if (hasDefault) continue;
      expect(await gateway.errorOf(call(fn, { [name]: "NULL" })), name).toMatchObject({
        code: "22004",
        message: `${family(fn.name)}: the argument ${name} is NULL, and needs a value`,
      });
    }
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

it("the rules are the same for a caller with standard_conforming_strings = off", async () => {
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

it("a NULL among the payloads is refused, and no payload is no message", async () => {
  expect(await gateway.errorOf("SELECT hawser.enqueue_batch('a', ARRAY['x', NULL], stream => false)")).toMatchObject({
    code: "22004",
  });
  await client.query("SELECT hawser.enqueue_batch('nothing', '{}'::text[], stream => false)");
  expect(await enqueued("nothing")).toEqual([]);
});

describe("a message is enqueued", () => {
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

  it("by a role that has nothing but hawser_nats, which reads and writes nothing else", async () => {
    await client.query("CREATE ROLE enqueuer; GRANT hawser_nats TO enqueuer; SET ROLE enqueuer");
    try {
      await client.query("SELECT hawser.enqueue('by.role', 'x', stream => false)");
      for (const denied of [
        "SELECT * FROM hawser.outbox",
        "SELECT * FROM hawser.outbox_0",
        "SELECT * FROM hawser.outbox_turns",
        "SELECT FROM hawser.outbox_keys FOR UPDATE",
        "SELECT * FROM hawser.outbox_state_asleep_seq",
        "SELECT nextval('hawser.outbox_state_slot_seq')",
        "SELECT hawser.enqueue_message('nats', 'a b', ARRAY['x'::bytea], NULL, NULL, NULL, false, NULL, NULL, NULL)",
        "SELECT hawser.outbox_take('nats', 'x', NULL)",
        "SELECT hawser.outbox_rotate('nats', 'x', 0)",
      ]) {
        expect(await gateway.errorOf(denied), denied).toMatchObject({ code: "42501" });
      }
    } finally {
      await client.query("RESET ROLE; DROP OWNED BY enqueuer; DROP ROLE enqueuer");
    }
  });

  it("but not in a transaction that may not write", async () => {
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

  const look = ({ from }: Position): NatsRead => ({ kind: "look", from });
  const texts = ({ messages }: NatsTurn) => messages.map(({ text }) => text);

  it("find what was committed, once, for the one that has taken over last", async () => {
    const { other, session } = await asBridge();
    const { turn, position } = await takeNats(session, "first");
    await other.client.query("SELECT hawser.enqueue('a', 'one', stream => false)");
    const first = { turn: turn + 1n, position, read: look(position) };
    const found = await natsTurn(session, "first", first);
    expect([found.state, texts(found), found.rest]).toEqual(["saved", ["one"], []]);
    expect(await natsTurn(session, "first", first)).toMatchObject({ state: "repeated", messages: [] });
    await takeNats(session, "second");
    const late = { ...first, turn: turn + 2n, mustSave: true };
    expect(await natsTurn(session, "first", late)).toMatchObject({ state: "lost", messages: [] });
  });

  it("read a page whose headers count as its payloads do", async () => {
    const { other, session } = await asBridge();
    const { turn, position } = await takeNats(session, "one");
    await other.client.query(
      "SELECT hawser.enqueue_batch('a', ARRAY['1', '2'], stream => false, headers => (SELECT jsonb_object_agg(n, repeat('x', 60000)) FROM generate_series(1, 10) AS n))",
    );
    const found = await natsTurn(session, "one", { turn: turn + 1n, position, read: look(position) });
    expect(texts(found)).toEqual(["1"]);
    const [{ role }] = found.messages as [ReadMessage];
    expect(found.rest).toEqual([expect.objectContaining({ role, route: null })]);
    const page = { kind: "page", role, from: position.from, to: found.to, after: found.messages[0]!.id } as const;
    const next = await natsTurn(session, "one", { turn: turn + 2n, position, read: page });
    expect([texts(next), next.hasMore]).toEqual([["2"], false]);
  });

  it("leave out the payload of a message that NATS would refuse, and say how long it is", async () => {
    const { other, session } = await asBridge();
    const { turn, position } = await takeNats(session, "one");
    await other.client.query(
      "SELECT hawser.enqueue('a', repeat('x', 2000000), stream => false), hawser.enqueue('a', 'y', stream => false)",
    );
    const step = { turn: turn + 1n, position, read: look(position), maxPayload: 1_000 };
    const { messages } = await natsTurn(session, "one", step);
    expect(messages).toMatchObject([
      { payload: null, bytes: "2000000" },
      { text: "y", bytes: "1" },
    ]);
  });

  it("do not go through all that waits for a first page, however much that is", async () => {
    const { other, session } = await asBridge();
    const { turn, position } = await takeNats(session, "one");
    await other.client.query(`INSERT INTO hawser.outbox (slot, destination, payload, message_id, to_stream)
      SELECT 0, 'a', convert_to(n::text, 'UTF8'), n::text, false FROM generate_series(1, 150000) AS n`);
    await session.query("BEGIN");
    const found = await natsTurn(session, "one", { turn: turn + 1n, position, read: look(position) });
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

  it("truncate a slot when all that it has is done, and not before, and not while it is written", async () => {
    const { other, session } = await asBridge();
    let { turn, position } = await takeNats(session, "one");
    const rotate = async (): Promise<boolean> =>
      (await session.query("SELECT rotated FROM hawser.outbox_rotate('nats', 'one', 0)")).rows[0].rotated;
    const count = (): Promise<number> => other.value("SELECT count(*)::integer FROM hawser.outbox");
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
      "BEGIN; INSERT INTO hawser.outbox_0 (slot, destination, payload, message_id, to_stream) VALUES (0, 'a', 'x', 'late', false)",
    );
    expect(await rotate()).toBe(false);
    await writer.query("COMMIT");
    await writer.end();
    expect(await rotate()).toBe(false);
    await allDone();
    expect(await rotate()).toBe(true);
    expect(await count()).toBe(0);
    expect(await other.value("SELECT count(*)::integer FROM hawser.outbox_turns WHERE sink = 0")).toBe(1);
  });

  it("are refused to those who are no members of hawser_bridge", async () => {
    const { other } = await asBridge();
    await other.client.query("SET SESSION AUTHORIZATION hawser_peer");
    const refused = { code: "42501", message: expect.stringContaining("member of the role hawser_bridge") };
    expect(await other.errorOf("SELECT hawser.outbox_take('nats', 'x', NULL)")).toMatchObject(refused);
    expect(await other.errorOf("SELECT hawser.outbox_rotate('nats', 'x', 0)")).toMatchObject(refused);
    const position = { from: "3:3:", to: null, after: "0", series: [], skipped: [] };
    await expect(natsTurn(other.client, "x", { turn: 2n, position, read: look(position) })).rejects.toMatchObject(
      refused,
    );
    await other.client.query("RESET SESSION AUTHORIZATION");
    expect(await other.errorOf("SELECT hawser.outbox_take('all', 'x', NULL)")).toMatchObject({ code: "22023" });
  });
});
