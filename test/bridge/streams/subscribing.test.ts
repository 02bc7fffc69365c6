/**
 * nats_subscribe_stream and its kin in Postgres: what they refuse, who may, and how a position moves.
 */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { PostgresSession } from "../../../src/foundation/postgres/index.js";
import { StreamTable } from "../../../src/nats/bridge/streams/stream-table.js";
import { type BindingWorld, type Bound, bindingWorld, errorOf } from "../support/binding-world.js";

let world: BindingWorld;
let owner: pg.Client;
let other: pg.Client;
beforeAll(async () => {
  world = await bindingWorld();
  await world.client.query("CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'");
  owner = await world.connect((await world.user()).url);
  other = await world.connect((await world.user()).url);
});
afterAll(() => world?.[Symbol.asyncDispose]());

const status = async (name: string) =>
  (await world.rows("SELECT * FROM hawser.stream_status WHERE name = $1", [name]))[0];

const filterRule = "and must have at most 1024 bytes in each element and at most 16384 bytes in all";

describe("nats_subscribe_stream", () => {
  it("enters a subscription once, and is no error again", async () => {
    const subscribe =
      "SELECT nats_subscribe_stream('ORDERS', 'take', name => 'once', filter => '{orders.*}', key_token => 2)";
    const before = await world.subscriptions();
    await owner.query(subscribe);
    await owner.query(subscribe);
    expect(await status("once")).toMatchObject({
      stream: "ORDERS",
      function: "public.take(bytea)",
      filters: ["orders.*"],
      start: "all",
      key_token: 2,
      done_to: null,
      lag: null,
      missing: "0",
      paused: false,
      problem: null,
    });
    expect(await world.subscriptions()).toEqual(before);
    await owner.query("SELECT nats_unsubscribe_stream('once')");
    await owner.query("SELECT nats_unsubscribe_stream('once')");
    expect(await status("once")).toBeUndefined();
    expect(await world.rows("SELECT FROM hawser_bridge_data.stream_subscriptions WHERE name = 'once'")).toEqual([]);
  });

  it.each([
    ["stream => 'a.b'", "stream is 'a.b', which is no name of a stream"],
    ["name => 'a b'", "name is 'a b', and must be 1 to 100 letters of ASCII, digits, '_' and '-'"],
    ["name => 'a.b'", "name is 'a.b', and must be 1 to 100 letters of ASCII, digits, '_' and '-'"],
    ["start => 'soon'", "start is 'soon', and must be 'new', 'all', a sequence number, or a time"],
    ["start => '0'", "start is 0, and a sequence number is between 1 and 9007199254740991"],
    ["key_token => 0", "key_token is 0, and must be from 1 to 64"],
    ...["", "a..b", "a b", "a.>.b"].map((filter): [string, string] => [
      `filter => '{a, "${filter}"}'`,
      `filter has '${filter}', and must have words joined by '.', of which each may be '*', and the last '>'`,
    ]),
    [
      "filter => array_fill('a'::text, '{101}')",
      "the argument filter is a list of 101 elements, and must have at most 100 elements",
    ],
    [
      "filter => ARRAY[repeat('x', 1025)]",
      `the argument filter is a list with an element of 1025 bytes, ${filterRule}`,
    ],
    [
      "filter => array_fill(repeat('x', 1024), '{16}') || 'y'::text",
      `the argument filter is a list of 16385 bytes, ${filterRule}`,
    ],
    [
      "filter => ARRAY[repeat('x', 24000000)]",
      `the argument filter is a list with an element of 24000000 bytes, ${filterRule}`,
    ],
    ["start => repeat('1', 101)", "start has 101 bytes, and may have 100"],
    ["domain => 'a.b'", "domain is 'a.b', which is no JetStream domain"],
  ] satisfies [string, string][])("refuses %s", async (argument, words) => {
    const given = new Map([
      ["stream", "'S'"],
      ["fn_oid", "'take'"],
      ["name", "'refused'"],
    ]);
    given.set(argument.split(" ")[0]!, argument.split("=> ")[1]!);
    const text = [...given].map((each) => each.join(" => ")).join(", ");
    const { code, message, hint } = await errorOf(owner, `SELECT nats_subscribe_stream(${text})`);
    expect({ code, message }).toEqual({ code: "22023", message: `nats_subscribe_stream: ${words}` });
    expect(hint).toBeTruthy();
  });

  it("takes filters up to their limits, and the table no others", async () => {
    await owner.query(
      "SELECT nats_subscribe_stream('S', 'take', name => 'greatest', filter => array_fill(repeat('x', 1024), '{16}'))",
    );
    expect((await status("greatest"))!["filters"]).toHaveLength(16);
    const more =
      "UPDATE hawser_bridge_data.stream_subscriptions SET filters = filters || 'y'::text WHERE name = 'greatest'";
    expect((await errorOf(world.client, more)).constraint).toBe("stream_subscriptions_filters_bytes");
    await owner.query("SELECT nats_unsubscribe_stream('greatest')");
  });

  it("does not choose the stream of a function that another role has bound", async () => {
    await owner.query(
      "SELECT hawser.bind_handler('stream', 'bound', 'take(bytea)'::regprocedure::oid::int8, '{public}')",
    );
    const { code, message } = await errorOf(other, "SELECT hawser.add_stream('bound', 'S', '{}', 'all', NULL, NULL)");
    expect({ code, message }).toEqual({
      code: "42501",
      message: "hawser.add_stream: the handler 'bound' was not made in this transaction",
    });
    expect(await status("bound")).toBeUndefined();
    await owner.query("SELECT nats_unsubscribe_stream('bound')");
  });

  it("takes a function also from a caller with quote_all_identifiers", async () => {
    await owner.query("SET quote_all_identifiers = on");
    await owner.query("SELECT nats_subscribe_stream('ORDERS', 'take', name => 'quoted')");
    await owner.query("RESET quote_all_identifiers");
    expect(await status("quoted")).toMatchObject({ function: "public.take(bytea)" });
    await owner.query("SELECT nats_unsubscribe_stream('quoted')");
  });

  it("keeps a start in one spelling", async () => {
    const spelt = (start: string) => world.rows("SELECT start FROM hawser.stream_start('f', $1)", [start]);
    expect(await spelt("0017")).toEqual([{ start: "17" }]);
    expect(await spelt("2026-01-31 12:00:00+02")).toEqual([{ start: "2026-01-31T10:00:00.000000Z" }]);
    const [{ start }] = (await spelt("new")) as [{ start: string }];
    expect(Math.abs(Date.parse(start) - Date.now())).toBeLessThan(60_000);
  });

  it("does not give a name away", async () => {
    await owner.query("SELECT nats_subscribe_stream('S', 'take', 'taken')");
    expect((await errorOf(other, "SELECT nats_subscribe_stream('S', 'take', 'taken')")).message).toContain(
      "there is a subscription 'taken' already",
    );
    expect((await errorOf(owner, "SELECT nats_subscribe_stream('T', 'take', 'taken')")).message).toContain(
      "there is a subscription 'taken' already, with another stream",
    );
    expect((await errorOf(other, "SELECT nats_unsubscribe_stream('taken')")).code).toBe("42501");
  });
});

describe("nats_seek_stream", () => {
  it("is for who has made the subscription", async () => {
    await owner.query("SELECT nats_subscribe_stream('S', 'take', 'sought')");
    await owner.query("SELECT nats_seek_stream('sought', '17')");
    expect(await status("sought")).toMatchObject({ start: "17" });
    const { code, message } = await errorOf(other, "SELECT nats_seek_stream('sought', 'all')");
    expect({ code, message: message.replace(/"\w+"/g, '"…"') }).toEqual({
      code: "42501",
      message: `nats_seek_stream: the subscription 'sought' was made by "…", and "…" is not in that role`,
    });
    // What the owner asked for is not done again by others.
    await world.client.query("UPDATE hawser_bridge_data.stream_subscriptions SET start = '5' WHERE name = 'sought'");
    expect((await other.query("SELECT sought FROM hawser.apply_seek('sought')")).rows).toEqual([{ sought: false }]);
    expect(await status("sought")).toMatchObject({ start: "5" });
    expect((await errorOf(owner, "SELECT nats_seek_stream('nobody', 'all')")).message).toBe(
      "nats_seek_stream: there is no subscription 'nobody' to a stream",
    );
  });
});

describe("a position", () => {
  const advance = async (name: string, done: string, generation = 1) => {
    const [row] = await world.rows<{ state: string }>(
      `SELECT a.state FROM hawser_bridge_data.nats_handlers AS h, hawser.mark_handled(h.id, h.token, '{}', '{}', $2, $3, 1, 1, 0, 0) AS a WHERE h.subject = $1`,
      [name, generation, done],
    );
    const [at] = await world.rows<{ position: bigint; done: string }>(
      "SELECT position, done FROM hawser_bridge_data.stream_subscriptions WHERE name = $1",
      [name],
    );
    return `${row!.state} ${at!.position} ${at!.done}`;
  };

  it("is the lowest unfinished one, and what is beyond it is kept", async () => {
    await owner.query("SELECT nats_subscribe_stream('S', 'take', 'moving')");
    expect(await advance("moving", "{[1,2)}", 0)).toBe("moved null {}");
    await world.client.query(
      "UPDATE hawser_bridge_data.stream_subscriptions SET generation = 1, position = 4 WHERE name = 'moving'",
    );
    expect(await advance("moving", "{[7,9)}")).toBe("marked 4 {[7,9)}");
    expect(await advance("moving", "{[5,6)}")).toBe("marked 5 {[7,9)}");
    expect(await advance("moving", "{[5,6)}")).toBe("done 5 {[7,9)}");
    expect(await advance("moving", "{[6,8)}")).toBe("moved 5 {[7,9)}");
    expect(await advance("moving", "{[6,7)}", 2)).toBe("moved 5 {[7,9)}");
    expect(await advance("moving", "{[6,7)}")).toBe("marked 8 {}");
    await world.client.query("UPDATE hawser_bridge_data.stream_subscriptions SET paused = true WHERE name = 'moving'");
    expect(await advance("moving", "{[9,10)}")).toBe("moved 8 {}");
  });

  it("is moved by nobody without the token", async () => {
    await owner.query("SELECT nats_subscribe_stream('S', 'take', 'guarded')");
    const executor = await world.connectExecutor();
    const [{ id }] = (await world.bound("guarded")) as [Bound];
    const forged = `SELECT state FROM hawser.mark_handled(${id}, 'x', '{}', '{}', 0, '{[1,9)}', 8, 1, 0, 0)`;
    expect((await executor.query(forged)).rows).toEqual([{ state: "moved" }]);
    expect((await errorOf(other, forged)).code).toBe("42501");
    expect((await errorOf(other, "UPDATE hawser_bridge_data.stream_subscriptions SET position = 9")).code).toBe(
      "42501",
    );
  });
});

describe("a transaction that is left open", () => {
  const held = async (name: string, work: () => Promise<void>) => {
    await owner.query("BEGIN");
    await owner.query(`SELECT nats_seek_stream('${name}', '17')`);
    try {
      await work();
    } finally {
      await owner.query("ROLLBACK");
    }
  };

  it("does not hold up the bridge when it reads how a subscription stands", async () => {
    await owner.query("SELECT nats_subscribe_stream('S', 'take', 'held')");
    const [row] = await world.rows<{ id: bigint; epoch: bigint; startedAt: string }>(
      "SELECT s.handler_id AS id, l.epoch, extract(epoch FROM pg_postmaster_start_time())::text AS \"startedAt\" FROM hawser_bridge_data.stream_subscriptions AS s, hawser.bridge_lead AS l WHERE s.name = 'held'",
    );
    const query = async (text: string, values: unknown[]) => (await world.client.query(text, values)).rows;
    const table = new StreamTable({ query } as unknown as PostgresSession);
    await world.client.query("SET lock_timeout = '10s'");
    const { id, epoch, startedAt } = row!;
    const note = { kind: "note", generation: 0n, server: startedAt, lag: 1, nothingUntil: 0 } as const;
    await held("held", async () => {
      await expect(table.take(id, epoch)).rejects.toThrow("could not obtain lock on row");
      expect(await table.note(id, note, epoch)).toBe("busy");
    });
    const state = await table.take(id, epoch);
    expect(state).toMatchObject({ start: { all: true }, paused: false });
    const record = { kind: "record", state: state!, missing: undefined } as const;
    const { generation, server } = state!;
    expect(await table.record(id, record, epoch)).toBe(true);
    expect(await table.note(id, { ...note, generation, server }, epoch)).toBe(true);
    // Under another generation, and from another server.
    expect(await table.note(id, note, epoch)).toBe(false);
    expect(await table.note(id, { ...note, generation, server: "1" }, epoch)).toBe(false);
    expect(await table.record(id, { ...record, state: { ...state!, server: "1" } }, epoch)).toBe(false);
  });

  it("does not keep what is over of others from being cleared away", async () => {
    await world.client.query("CREATE FUNCTION over(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'");
    await owner.query("SELECT nats_subscribe_stream('S', 'over', 'over')");
    const rows = () => world.rows("SELECT FROM hawser_bridge_data.stream_subscriptions WHERE name = 'over'");
    await world.client.query("SET lock_timeout = '10s'");
    await held("over", async () => {
      await world.client.query("DROP FUNCTION over(bytea) CASCADE");
      await world.client.query("SELECT hawser.prune_handlers()");
      expect(await rows()).toHaveLength(1);
    });
    await world.client.query("SELECT hawser.prune_handlers()");
    expect(await rows()).toHaveLength(0);
  });
});
