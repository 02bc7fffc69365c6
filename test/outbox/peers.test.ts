/**
 * The outbox for peers in SQL: what the functions that enqueue refuse, and what a turn of the relay stores for whom.
 */
import { once } from "node:events";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { outboxConstants } from "../../generated/ts/settings/outbox.js";
import { PeerRelay } from "../../src/outbox/index.js";
import { DatabaseAddress } from "../../src/postgres/index.js";
import { silentLogger } from "../../src/runtime/index.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { type PeerTurn, peerTurn, takePeers } from "./support/turns.js";

let database: TestDatabase;
let client: pg.Client;
const clients: pg.Client[] = [];

beforeAll(async () => {
  // Where only peers exist.
  database = await testDatabase({ nats: false });
  client = await connected();
});
beforeEach(async () => {
  await client.query(
    "TRUNCATE hawser_data.outbox, hawser_data.stored_messages, hawser_data.listeners, hawser_data.routes, hawser_data.peer_waiting_topics, hawser_data.channels, hawser_data.cursors",
  );
  await takePeers(client, "relay");
  await turn();
});
afterAll(async () => {
  for (const one of clients) await one.end();
  await database?.drop();
});

async function connected(): Promise<pg.Client> {
  const one = new pg.Client({ connectionString: database.url });
  await one.connect();
  clients.push(one);
  return one;
}

async function turn(owner = "relay", maxMessages = 1_000): Promise<PeerTurn> {
  return peerTurn(client, owner, maxMessages);
}

async function enqueue(topic: string, payload: string, key: string | null = null, on = client): Promise<void> {
  await on.query("SELECT hawser.enqueue($1, $2, key => $3)", [topic, payload, key]);
}

async function serve(topic: string, ...names: string[]): Promise<void> {
  for (const name of names)
    await client.query("INSERT INTO hawser_data.listeners (topic, addr, listener_name) VALUES ($1, $2, $2)", [
      topic,
      name,
    ]);
}

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

/** Reads the stored messages by listener, in the order of storage; an empty name stands for no listener yet. */
async function stored(): Promise<Record<string, string[]>> {
  const { rows } = await client.query(
    `SELECT coalesce(m.owner, CASE WHEN starts_with(m.listener_name, '__#') THEN '' ELSE m.listener_name END) AS name,
            convert_from(s.payload, 'UTF8') AS text
       FROM hawser_data.stored_messages AS s JOIN hawser_data.channels AS m USING (channel_id)
      ORDER BY 1, s.channel_id, s.epoch, s.number`,
  );
  const found: Record<string, string[]> = {};
  for (const { name, text } of rows) found[name] = [...(found[name] ?? []), text];
  return found;
}

/** The listener has handled everything. */
async function handle(name: string): Promise<void> {
  await client.query(
    "DELETE FROM hawser_data.stored_messages AS s USING hawser_data.channels AS m WHERE s.channel_id = m.channel_id AND coalesce(m.owner, m.listener_name) = $1",
    [name],
  );
}

/** Messages as they wait for a listener. */
async function waiting(): Promise<Record<string, unknown>[]> {
  const { rows } = await client.query(
    "SELECT convert_from(payload, 'UTF8') AS text, headers FROM hawser_data.stored_messages ORDER BY epoch, number",
  );
  return rows;
}

describe("enqueue for a topic", () => {
  it("returns the id, which no message for NATS has", async () => {
    const { rows } = await client.query(
      `SELECT hawser.enqueue('t', 'x') AS peer, hawser.enqueue('s', 'x', stream => false) AS nats`,
    );
    expect(BigInt(rows[0].nats)).toBe(BigInt(rows[0].peer) + 1n);
  });

  it.each([
    ["NULL, 'x'", /argument topic is NULL/],
    ["'', 'x'", /topic is "", and must be 1 to 255 bytes/],
    ["'a:b', 'x'", /topic is "a:b", and must not contain ':'/],
    ["'__#a', 'x'", /"__#a" begins with __#, which is reserved/],
    ["'t', NULL", /argument payload is NULL/],
    ["'t', ''", /has 0 bytes, and must have 1 to 67108864/],
    ["'t', 'x', headers => '[]'", /headers must be a JSON object, and this is array/],
    ["'t', 'x', headers => '{\"a b\": \"1\"}'", /the name "a b" must be 1 to 255 characters of visible ASCII/],
    ["'t', 'x', headers => '{\"Message-Id\": \"1\"}'", /"Message-Id" is set by Hawser; give message_id instead/],
    ["'t', 'x', headers => '{\"Message-Key\": \"1\"}'", /"Message-Key" is set by Hawser; give key instead/],
    ["'t', 'x', headers => '{\"Message-Origin\": \"a:a:me\"}'", /"Message-Origin" is set by Hawser; leave it out/],
    ["'t', 'x', headers => '{\"a\": 1}'", /"a" must be a string or an array of strings, and has number/],
    ["'t', 'x', jsonb_build_object('a', E'1\\n2')", /the value of "a" must not contain control characters/],
    [
      "'t', 'x', jsonb_build_object('a', repeat('x', 8193))",
      /a value of 8193 bytes, and must have .* values of at most 8192 bytes/,
    ],
    [
      "'t', 'x', jsonb_build_object('a', array_fill('x'::text, ARRAY[257]))",
      /an object with 257 values, and must have at most 256 values/,
    ],
    ["'t', 'x', key => ''", /argument key is "", and must be 1 to 1024 bytes/],
    ["'t', 'x', message_id => 'a b'", /argument message_id is "a b"/],
  ])("refuses (%s)", async (given, message) => {
    await expect(client.query(`SELECT hawser.enqueue(${given})`)).rejects.toThrow(message);
  });

  it("accepts as many headers as fit beside those of Hawser, with the key and origin before them", async () => {
    const headers = (count: number) => `headers => jsonb_build_object('a', array_fill('x'::text, ARRAY[${count}]))`;
    await expect(client.query(`SELECT hawser.enqueue('t', 'x', ${headers(254)}, message_id => 'm')`)).rejects.toThrow(
      "headers: there are 257, and a message has 256 at most",
    );
    await client.query(`SELECT hawser.enqueue('t', 'x', ${headers(253)}, message_id => 'm', key => 'k')`);
    await client.query(
      "SELECT hawser.enqueue_peer('t', ARRAY['y'::bytea], NULL, NULL, NULL, NULL, NULL, NULL, 'a-1:a')",
    );
    await client.query("SELECT hawser.enqueue('t', 'z')");
    await turn();
    const role = (await client.query("SELECT session_user::text AS role")).rows[0].role;
    const given = new Array(253).fill(["a", "x"]);
    expect(await waiting()).toEqual([
      { text: "x", headers: [["message-origin", `::${role}`], ["message-key", "k"], ...given, ["message-id", "m"]] },
      { text: "y", headers: [["message-origin", `a-1:a:${role}`]] },
      { text: "z", headers: [["message-origin", `::${role}`]] },
    ]);
  });

  it.each([
    ["a:b:c", 'the topic of the origin "b:c"'],
    ["a", "the topic of the origin"],
    [":a", 'the origin ""'],
    ["a:", 'the topic of the origin ""'],
    ["a\n:b", 'the origin "a\\n"'],
  ])("as a peer is refused for one that cannot be: %j", async (origin, says) => {
    const call = "SELECT hawser.enqueue_peer('t', ARRAY['y'::bytea], NULL, NULL, NULL, NULL, NULL, NULL, $1)";
    await expect(client.query(call, [origin])).rejects.toThrow(says);
  });
});

describe("a turn", () => {
  it("that finds nothing returns no time for the next poll", async () => {
    expect(await turn()).toMatchObject({ state: "read", handed: 0, due_from: null, due_in_ms: null });
  });

  it("stores committed messages once for a listener of the topic", async () => {
    await serve("warehouse", "w-1");
    await enqueue("warehouse", "1");
    await enqueue("warehouse", "2", "k");
    expect(await turn()).toMatchObject({ state: "saved", handed: 2, has_more: false, owners: ["w-1"] });
    expect(await turn()).toMatchObject({ state: "read", handed: 0 });
    expect(await stored()).toEqual({ "w-1": ["1", "2"] });
  });

  it("ends at a full page, and the next one continues", async () => {
    await serve("warehouse", "w-1");
    await client.query(
      "SELECT hawser.enqueue_batch('warehouse', ARRAY(SELECT n::text FROM generate_series(1, 25) AS n))",
    );
    await enqueue("warehouse", "26");
    expect(await turn("relay", 10)).toMatchObject({ handed: 10, has_more: true });
    await enqueue("warehouse", "27");
    expect(await turn("relay", 10)).toMatchObject({ handed: 10, has_more: true });
    expect(await turn("relay", 10)).toMatchObject({ handed: 6, has_more: true });
    expect(await turn("relay", 10)).toMatchObject({ handed: 1, has_more: false });
    expect(await stored()).toEqual({ "w-1": Array.from({ length: 27 }, (_, nth) => String(nth + 1)) });
  });

  it("stores under an epoch that no lost turn can have had", async () => {
    await serve("warehouse", "w-1");
    const epochs = async () => {
      const { rows } = await client.query<{ epoch: string }>(
        "SELECT epoch FROM hawser_data.stored_messages ORDER BY epoch",
      );
      return rows.map(({ epoch }) => Number(epoch));
    };
    // A standby that has become the primary lacks the last turns. What they have stored was handled.
    await client.query("CREATE TABLE before AS SELECT * FROM hawser_data.outbox_turns");
    await enqueue("warehouse", "1");
    await turn();
    const [lost] = await epochs();
    await client.query("TRUNCATE hawser_data.outbox_turns, hawser_data.stored_messages");
    await client.query("INSERT INTO hawser_data.outbox_turns SELECT * FROM before; DROP TABLE before");
    await takePeers(client, "relay");
    await turn();
    expect((await epochs())[0]).toBeGreaterThan(lost!);
  });

  const peerRelay = (): PeerRelay =>
    new PeerRelay({
      address: DatabaseAddress.of(database.url),
      ask: async (text, values) => (await client.query(text, values as unknown[])).rows,
      logger: silentLogger,
    });
  const owner = async (): Promise<string> =>
    (await client.query("SELECT owner FROM hawser_data.outbox_turns WHERE sink = 1 ORDER BY turn DESC LIMIT 1")).rows[0]
      .owner;

  it("gives back what it gets while it stops, so that the next one need not wait", async () => {
    await client.query("SELECT hawser.outbox_take('peer', '', 'relay')");
    const relay = peerRelay();
    const locking = await connected();
    await locking.query("BEGIN; LOCK TABLE hawser_data.outbox_turns IN SHARE MODE");
    relay.start();
    await eventually("it waits for its first turn", async () => {
      const { rows } = await client.query(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser: outbox for peers' AND wait_event_type = 'Lock'",
      );
      return rows.length > 0;
    });
    const stopped = relay.stop(20_000);
    await locking.query("ROLLBACK");
    await stopped;
    expect(await owner()).toBe("");
  });

  it("can be run again by a replaced process when its successor has ended", async () => {
    const relay = peerRelay();
    await client.query("SELECT hawser.outbox_take('peer', '', 'relay')");
    relay.start();
    try {
      await eventually("it relays", async () => (await owner()) !== "");
      // As if it had stood still.
      const late = "setval('hawser_data.outbox_state_peer_beat_seq', 1) IS NOT NULL";
      await eventually("another one has it", async () => {
        await client.query(
          `SELECT CASE WHEN ${late} THEN (SELECT t.turn FROM hawser.outbox_take('peer', 'other', NULL) AS t) END`,
        );
        return (await owner()) === "other";
      });
      await enqueue("warehouse", "1");
      // It hears of it, and its turn says that another one works.
      await eventually("it waits", async () => {
        await client.query("SELECT pg_notify('hawser_peer_outbox', '')");
        const { rows } = await client.query(
          "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'hawser: outbox for peers'",
        );
        return rows.length === 0;
      });
      await client.query("SELECT hawser.outbox_take('peer', '', 'other')");
      await eventually(
        "it relays again",
        async () => (await client.query("SELECT FROM hawser_data.stored_messages")).rowCount === 1,
      );
    } finally {
      await relay.stop();
    }
  });

  it("shows others when it may be overdue, and when it has ended", async () => {
    const asked = async () => (await client.query("SELECT * FROM hawser.peer_relay_is_free()")).rows[0];
    const { is_free: isFree, ask_in_ms: askInMs } = await asked();
    expect(isFree).toBe(false);
    expect(askInMs).toBeGreaterThan(0);
    expect(askInMs).toBeLessThanOrEqual(outboxConstants.peerBeatMs + outboxConstants.slowPollMs / 2 + 1);
    const listening = await connected();
    const told = once(listening, "notification");
    await listening.query(`LISTEN ${outboxConstants.peerRelayChannel}`);
    await client.query("SELECT hawser.outbox_take('peer', '', 'relay')");
    await told;
    expect(await asked()).toEqual({ is_free: true, ask_in_ms: 0 });
  });

  it("continues after a dump without turns, on a host whose clock is behind too", async () => {
    await serve("warehouse", "w-1");
    await enqueue("warehouse", "1");
    await turn();
    const ahead = Date.now() + 86_400_000;
    await client.query("UPDATE hawser_data.cursors SET epoch = $1, number = 1", [ahead]);
    await client.query("UPDATE hawser_data.stored_messages SET epoch = $1", [ahead + 7]);
    await enqueue("warehouse", "2");
    await client.query("TRUNCATE hawser_data.outbox_turns");
    await client.query("SELECT hawser.outbox_take('peer', 'relay', NULL)");
    expect(await turn()).toMatchObject({ state: "saved", handed: 2 });
    const { rows } = await client.query(
      "SELECT min(epoch) AS first, max(epoch) AS last FROM hawser_data.stored_messages",
    );
    expect(Number(rows[0].first)).toBe(ahead + 7);
    expect(Number(rows[0].last)).toBeGreaterThan(ahead + 7);
  });

  it.each([
    ["topic", "''", "NULL"],
    ["topic", "'a:b'", "NULL"],
    ["topic", "NULL", "NULL"],
    ["listener", "'a'", "''"],
    ["listener", "'a'", "repeat('b', 256)"],
  ])("is never given a bad %s: %s", async (name, topic, listener) => {
    for (const later of ["NULL", "now() + interval '1 hour'"]) {
      await expect(
        client.query(
          `SELECT hawser.enqueue_peer(${topic}, ARRAY['x'::bytea], NULL, NULL, NULL, ${listener}, ${later}, NULL, NULL)`,
        ),
      ).rejects.toMatchObject({
        code: topic === "NULL" ? "22004" : "22023",
        message: expect.stringMatching(new RegExp(`the (argument p_)?${name} `)),
      });
    }
  });

  it("is stored under a greater epoch, whoever asks to take over without a sink", async () => {
    await enqueue("warehouse", "1");
    const epoch = "SELECT epoch FROM hawser_data.outbox_turns WHERE sink = 1 ORDER BY turn DESC LIMIT 1";
    const { rows: before } = await client.query(epoch);
    await expect(client.query("SELECT hawser.outbox_take(NULL, 'other', NULL)")).rejects.toMatchObject({
      code: "22004",
      message: "hawser.outbox_take: the argument p_kind is NULL, and needs a value",
    });
    expect((await client.query(epoch)).rows).toEqual(before);
    expect(await turn()).toMatchObject({ state: "saved", handed: 1 });
  });

  it("fails if another relay runs the turn at the same time", async () => {
    await enqueue("warehouse", "1");
    const other = await connected();
    await client.query("BEGIN");
    await turn();
    const refused = expect(takePeers(other, "other")).rejects.toThrow(/outbox_turns_1/);
    // A transaction sees what the others do as it was when it first looked.
    const watcher = await connected();
    await eventually("it waits for the turn", async () => {
      const { rowCount } = await watcher.query(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%outbox_take%'",
      );
      return rowCount === 1;
    });
    await client.query("COMMIT");
    await refused;
  });

  it("assigns one key to one of the running listeners, and messages without a key in turn", async () => {
    await serve("warehouse", "w-1", "w-2", "w-3", "away");
    const running = await connected();
    for (const name of ["w-1", "w-2", "w-3"]) await running.query("SELECT FROM hawser.own_name($1, 'twin', 1)", [name]);
    const keys = Array.from({ length: 30 }, (_, nth) => `k${nth}`);
    for (const nth of [1, 2]) {
      for (const key of keys) await enqueue("warehouse", `${key}:${nth}`, key);
      await turn();
    }
    const byName = await stored();
    expect(Object.keys(byName)).toEqual(["w-1", "w-2", "w-3"]);
    for (const key of keys) {
      const holders = Object.values(byName).filter((texts) => texts.includes(`${key}:1`));
      expect(holders.map((texts) => texts.filter((text) => text.startsWith(`${key}:`)))).toEqual([
        [`${key}:1`, `${key}:2`],
      ]);
    }
    await client.query("TRUNCATE hawser_data.stored_messages");
    for (let nth = 0; nth < 9; nth++) await enqueue("warehouse", `${nth}`);
    await turn();
    expect(Object.values(await stored()).map((texts) => texts.length)).toEqual([3, 3, 3]);
    // None of them runs: the one that was used last.
    for (const name of ["w-1", "w-2", "w-3"]) await running.query("SELECT FROM hawser.release_name($1, true)", [name]);
    await client.query("TRUNCATE hawser_data.stored_messages");
    await client.query(
      `INSERT INTO hawser_data.cursors (channel_id, epoch)
       SELECT channel_id, 7 FROM hawser_data.channels WHERE listener_name = 'w-2'`,
    );
    for (let nth = 0; nth < 9; nth++) await enqueue("warehouse", `${nth}`, `k${nth}`);
    await turn();
    expect(Object.keys(await stored())).toEqual(["w-2"]);
  });

  it("keeps messages of an unserved topic waiting, and assigns them to its first listener", async () => {
    await enqueue("warehouse", "1", "k");
    await enqueue("warehouse", "2");
    expect(await turn()).toMatchObject({ handed: 2, owners: [""] });
    await enqueue("warehouse", "3", "k");
    await turn();
    expect(await stored()).toEqual({ "": ["1", "2", "3"] });
    await serve("warehouse", "w-1");
    expect(await turn()).toMatchObject({ state: "saved", handed: 0, owners: ["w-1"] });
    await enqueue("warehouse", "4", "k");
    await enqueue("warehouse", "5");
    await turn();
    expect(await stored()).toEqual({ "w-1": ["1", "2", "3", "4", "5"] });
    await handle("w-1");
    await enqueue("warehouse", "6", "k");
    await turn();
    expect(await stored()).toEqual({ "w-1": ["6"] });
    expect((await client.query("SELECT * FROM hawser_data.peer_waiting_topics")).rows).toEqual([]);
  });

  describe("for messages to all listeners", () => {
    const listeners = ["o-1", "o-2", "o-3", "o-4"];
    const query = (text: string, values?: unknown[]): Promise<unknown> => client.query(text, values);
    const toAll = (texts: readonly string[], key: string | null = null) =>
      query("SELECT hawser.enqueue_batch('orders', $1::text[], key => $2, to_all => true)", [texts, key]);

    /** Runs turns until nothing is left. Resolves with the number of messages that each one hands over. */
    async function turns(maxMessages?: number): Promise<number[]> {
      const { handed, has_more } = await turn("relay", maxMessages);
      const rest = has_more ? await turns(maxMessages) : [];
      return handed === 0 ? rest : [handed, ...rest];
    }

    it("counts each copy, so that a turn writes at most a page or the copies of one message", async () => {
      await serve("orders", ...listeners);
      await client.query("UPDATE hawser_data.listeners SET durable = true");
      await enqueue("orders", "first");
      await toAll(numbers(1, 6));
      await enqueue("orders", "last");
      expect(await turns(10)).toEqual([3, 2, 3]);
      const found = await stored();
      for (const name of listeners) expect(found[name]?.filter((text) => text.length === 1)).toEqual(numbers(1, 6));
      expect(Object.values(found).flat()).toHaveLength(26);
      await toAll(["one"]);
      await toAll(["two"]);
      expect(await turns(3)).toEqual([1, 1]);
    });

    it("counts the bytes of each copy", async () => {
      await serve("orders", ...listeners);
      await client.query("UPDATE hawser_data.listeners SET durable = true");
      const long = "x".repeat(200_000);
      // A page has a million bytes, so that the copies of one message fit.
      await toAll([long, long, long]);
      expect(await turns()).toEqual([1, 1, 1]);
    });

    it("delivers messages for one listener independently, also with the key of a copy", async () => {
      await client.query(
        "INSERT INTO hawser_data.peers (name, epoch, group_name) VALUES ('o-1', 1, 'red'), ('o-2', 1, 'blue')",
      );
      await serve("orders", "o-1", "o-2");
      await toAll(["copy"], "k");
      await turn();
      await enqueue("orders", "1", "k");
      await turn();
      const { rows } = await client.query(
        `SELECT w.for_group, string_agg(convert_from(s.payload, 'UTF8'), ' ' ORDER BY s.epoch) AS texts
           FROM hawser_data.peer_waiting_topics AS w JOIN hawser_data.stored_messages AS s USING (channel_id) GROUP BY 1 ORDER BY 1`,
      );
      expect(rows).toEqual([
        { for_group: "", texts: "1" },
        { for_group: "blue", texts: "copy" },
        { for_group: "red", texts: "copy" },
      ]);
      await client.query("DELETE FROM hawser_data.peers");
    });
  });

  it("returns each channel once, including those of a first listener", async () => {
    await serve("orders", "o-1");
    await enqueue("warehouse", "1");
    await enqueue("shop", "1", "k");
    await turn();
    await serve("warehouse", "w-1");
    await serve("shop", "s-1");
    await enqueue("orders", "2");
    await enqueue("shop", "2", "k");
    const { owners, channel_ids } = await turn();
    expect(owners.toSorted()).toEqual(["o-1", "s-1", "w-1"]);
    expect(new Set(channel_ids).size).toBe(3);
  });

  it("stores for a listener that has left, until another one arrives", async () => {
    await serve("warehouse", "w-1");
    await enqueue("warehouse", "1", "k");
    await turn();
    await client.query("DELETE FROM hawser_data.listeners");
    await enqueue("warehouse", "2", "k");
    await enqueue("warehouse", "3");
    await turn();
    expect(await stored()).toEqual({ "w-1": ["1", "2", "3"] });
    await serve("warehouse", "w-2");
    await enqueue("warehouse", "4", "k");
    await enqueue("warehouse", "5", "other");
    await turn();
    // What has the same key stays behind what waits.
    expect(await stored()).toEqual({ "w-1": ["1", "2", "3", "4"], "w-2": ["5"] });
    await handle("w-1");
    await enqueue("warehouse", "6", "k");
    await turn();
    expect(await stored()).toEqual({ "w-2": ["5", "6"] });
  });
});
