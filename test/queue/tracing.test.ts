/**
 * Traces in SQL: where the context of a message comes from that is enqueued or published, and what functions that handle
 * messages have as theirs.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import type { Msg } from "@nats-io/transport-node";
import { headers as natsHeaders } from "@nats-io/transport-node";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { traceConstants } from "../../generated/ts/settings/queue.js";
import { sharedTrace, traceContextOf } from "../../src/foundation/runtime/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { enqueue, enqueueBatch } from "../../src/jobs-and-peers/queue/enqueue/enqueue.js";
import { type BridgeWorld, bridgeWorld } from "../bridge/support/bridge-world.js";
import { eventually } from "../support/eventually.js";
import { type TestGateway, testGateway } from "../support/gateway.js";
import { enqueuedMessages } from "./support/enqueued.js";

const parentOf = (trace: number, span = 1): string =>
  `00-${trace.toString(16).padStart(32, "0")}-${span.toString(16).padStart(16, "0")}-01`;
const commentOf = (parent: string, more = ""): string => ` /*route='%2Fcart',traceparent='${parent}'${more}*/`;

/** Values that are no context. */
const invalidParents = [
  "",
  "x",
  `01-${"1".repeat(32)}-${"1".repeat(16)}-01`,
  `00-${"0".repeat(32)}-${"1".repeat(16)}-01`,
  `00-${"1".repeat(32)}-${"0".repeat(16)}-01`,
  `00-${"A".repeat(32)}-${"1".repeat(16)}-01`,
  `00-${"1".repeat(32)}-${"1".repeat(16)}-1`,
  `00-${"1".repeat(31)}-${"1".repeat(17)}-01`,
  `${parentOf(1)} `,
  `${parentOf(1)}\n`,
  `${parentOf(1)}-00`,
];
const invalidStates = ["x", "a=", "=1", "A=1", "a=1,", "a=1,,b=2", "a=b=c", "a=1\nb=2", "a=é", `a=${"b".repeat(511)}`];

describe("a message that is enqueued", () => {
  let gateway: TestGateway;
  let client: pg.Client;
  beforeAll(async () => {
    // No NATS server is defined: what is enqueued stays where it can be looked at.
    gateway = await testGateway({ serverOptions: false });
    ({ client } = gateway);
  });
  afterAll(() => gateway?.[Symbol.asyncDispose]());
  beforeEach(() => client.query("RESET ALL"));

  const setTrace = (parent: string, state = "", on = client) =>
    on.query("SELECT set_config('hawser.traceparent', $1, false), set_config('hawser.tracestate', $2, false)", [
      parent,
      state,
    ]);
  /** Headers of the newest messages for peers, or for NATS, the oldest first, by lower-case names. */
  const enqueued = async (count: number): Promise<Record<string, unknown>[]> => {
    const { rows } = await client.query<{ headers: Record<string, unknown> | [string, string][] | null }>(
      `SELECT headers FROM ${enqueuedMessages} AS m ORDER BY id DESC LIMIT $1`,
      [count],
    );
    return rows
      .map(({ headers }) => (Array.isArray(headers) ? Object.fromEntries(headers) : (headers ?? {})))
      .reverse();
  };
  /** Headers of the message that a call enqueues. */
  const headersAfter = async (text: string): Promise<Record<string, unknown>> => {
    await client.query(text);
    return (await enqueued(1))[0]!;
  };
  const calls = [
    ["for peers", "SELECT hawser.enqueue('a', 'x')"],
    ["for NATS", "SELECT hawser.enqueue('a', 'x', false)"],
    ["for a stream, with a key", "SELECT hawser.enqueue('a', 'x', true, key => 'k')"],
    ["in a batch for peers", "SELECT hawser.enqueue_batch('a', ARRAY['x', 'y'])"],
    ["in a batch for NATS", "SELECT hawser.enqueue_batch('a', ARRAY['x', 'y'], false)"],
    ["in a block", "DO $$BEGIN PERFORM hawser.enqueue('a', 'x'); END$$"],
  ] as const;

  it.each(calls)("%s has no header of a trace if there is none", async (_, call) => {
    expect(await headersAfter(call)).toEqual({});
  });

  it.each(calls)("%s has the context of the setting", async (_, call) => {
    await setTrace(parentOf(1), "a=1,b=2");
    expect(await headersAfter(call)).toEqual({ traceparent: parentOf(1), tracestate: "a=1,b=2" });
  });

  it.each(calls)("%s has the context of the statement's comment", async (_, call) => {
    expect(await headersAfter(call + commentOf(parentOf(2)))).toEqual({ traceparent: parentOf(2) });
  });

  it("for later, and each of a batch, has it too", async () => {
    await setTrace(parentOf(3));
    await client.query("SELECT hawser.enqueue('later', 'x', deliver_at => now() + interval '1 hour')");
    expect(
      await gateway.value("SELECT headers FROM hawser_data.queue WHERE later IS NOT NULL AND topic = 'later'"),
    ).toEqual([["traceparent", parentOf(3)]]);
    await client.query("SELECT hawser.enqueue_batch('a', ARRAY['x', 'y'], headers => '{\"N\": \"1\"}')");
    const both = { N: "1", traceparent: parentOf(3) };
    expect(await enqueued(2)).toEqual([both, both]);
  });

  it("keeps headers of a trace that it has, in any case, and gets no other", async () => {
    await setTrace(parentOf(1), "a=1");
    for (const given of [
      { traceparent: "x" },
      { TraceParent: parentOf(9) },
      { tracestate: "z=1" },
      { TRACESTATE: "z=1" },
    ]) {
      for (const to of ["'a', 'x'", "'a', 'x', false"]) {
        const call = `SELECT hawser.enqueue(${to}, headers => '${JSON.stringify(given)}')`;
        expect(await headersAfter(call + commentOf(parentOf(2)))).toEqual(given);
      }
    }
  });

  it("has the setting before the comment, and the comment if the setting is invalid", async () => {
    await setTrace(parentOf(1), "a=1");
    const commented = "SELECT hawser.enqueue('a', 'x')" + commentOf(parentOf(2), ",tracestate='b%3D2%2Cc%3D%27'");
    expect(await headersAfter(commented)).toEqual({ traceparent: parentOf(1), tracestate: "a=1" });
    for (const invalid of invalidParents) {
      await setTrace(invalid, "a=1");
      expect(await headersAfter("SELECT hawser.enqueue('a', 'x')")).toEqual({});
      expect(await headersAfter(commented)).toEqual({ traceparent: parentOf(2), tracestate: "b=2,c='" });
    }
  });

  it("has no part of an invalid context, and no state that is invalid", async () => {
    for (const invalid of invalidParents) {
      expect(await headersAfter("SELECT hawser.enqueue('a', 'x')" + commentOf(invalid, ",tracestate='a%3D1'"))).toEqual(
        {},
      );
    }
    for (const invalid of invalidStates) {
      await setTrace(parentOf(1), invalid);
      expect(await headersAfter("SELECT hawser.enqueue('a', 'x')")).toEqual({ traceparent: parentOf(1) });
      await setTrace("");
      const encoded = `,tracestate='${encodeURIComponent(invalid)}'`;
      expect(await headersAfter("SELECT hawser.enqueue('a', 'x')" + commentOf(parentOf(2), encoded))).toEqual({
        traceparent: parentOf(2),
      });
    }
    for (const encoded of ["a%3D%00", "a%3D%0a", "a%3D%", "a%3D%4", "a%3D%zz", "a%3D%80"]) {
      const call = "SELECT hawser.enqueue('a', 'x')" + commentOf(parentOf(2), `,tracestate='${encoded}'`);
      expect(await headersAfter(call)).toEqual({ traceparent: parentOf(2) });
    }
  });

  it("has the comment at the end of the statement alone, whatever else the statement has", async () => {
    const call = "SELECT hawser.enqueue('a', 'x')";
    const comment = commentOf(parentOf(2)).trim();
    expect(await headersAfter(`${call} /* a */ ${comment} ; \n`)).toEqual({ traceparent: parentOf(2) });
    expect(await headersAfter(`/* a */ ${call} /*tracestate='a%3D\\'',traceparent='${parentOf(2)}'*/`)).toEqual({
      traceparent: parentOf(2),
      tracestate: "a='",
    });
    for (const other of [
      `${comment} ${call}`,
      `${call} ${comment} /* b */`,
      `${call} -- ${comment} x`,
      `${call} WHERE 'traceparent=' <> ''`,
      `SELECT hawser.enqueue('a', $$${comment}$$)`,
      `${call} /*xtraceparent='${parentOf(2)}'*/`,
      `${call} /*traceparent=${parentOf(2)}*/`,
      `${call} WHERE '*/' = '*/'`,
      `${call} WHERE ${"'/*/*'".repeat(1)} <> 'traceparent=*/' --*/`,
    ]) {
      expect(await headersAfter(other), other).toEqual({});
    }
  });

  it("has the comment of a prepared statement, and of the client's statement within functions and triggers", async () => {
    await client.query(`
      CREATE TABLE orders (id int);
      CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM hawser.enqueue(''a'', NEW.id::text); RETURN NULL; END';
      CREATE TRIGGER tell AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell();`);
    expect(await headersAfter(`INSERT INTO orders VALUES (1)${commentOf(parentOf(4))}`)).toEqual({
      traceparent: parentOf(4),
    });
    const text = `INSERT INTO orders VALUES ($1)${commentOf(parentOf(5))}`;
    for (const id of [1, 2]) await client.query({ name: "insert", text, values: [id] });
    expect(await enqueued(2)).toEqual([{ traceparent: parentOf(5) }, { traceparent: parentOf(5) }]);
  });

  it("has the comment of its own statement if statements are long", async () => {
    const long = `INSERT INTO many SELECT n FROM (VALUES ${Array.from({ length: 5_000 }, (_, n) => `(${n})`).join(",")}) AS n (n)`;
    expect(long.length).toBeGreaterThan(traceConstants.shortStatementBytes);
    await client.query(`
      CREATE TABLE many (id int);
      CREATE FUNCTION tell_some() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF NEW.id < 2 THEN PERFORM hawser.enqueue(''a'', NEW.id::text); END IF; RETURN NULL; END';
      CREATE TRIGGER tell AFTER INSERT ON many FOR EACH ROW EXECUTE FUNCTION tell_some();`);
    const statements: [text: string, traceparent?: string][] = [
      [long],
      [long + commentOf(parentOf(1)), parentOf(1)],
      [long],
      [long + commentOf(parentOf(2)), parentOf(2)],
      ["INSERT INTO many VALUES (0), (1)"],
      [`INSERT INTO many VALUES (0), (1)${commentOf(parentOf(3))}`, parentOf(3)],
      [`${long}${commentOf(parentOf(4))} WHERE '${"x".repeat(4_096)}' <> ''`],
    ];
    await client.query("BEGIN");
    for (const [text, traceparent] of statements) {
      await client.query(text);
      const each = traceparent === undefined ? {} : { traceparent };
      expect(await enqueued(2)).toEqual([each, each]);
    }
    await client.query("COMMIT");
  });

  it("stays without it where its headers have no room", async () => {
    // 256 values of a message for peers, three of which others may add; 1,024 of one for NATS.
    const full = (count: number) => JSON.stringify({ N: Array.from({ length: count }, () => "1") });
    const peers = 253;
    const nats = 1_024;
    await setTrace(parentOf(1));
    const has = async (to: string, headers: string) =>
      "traceparent" in (await headersAfter(`SELECT hawser.enqueue('a', 'x'${to}, headers => '${headers}')`));
    expect(await has("", full(peers - 1))).toBe(true);
    expect(await has("", full(peers))).toBe(false);
    expect(await has(", message_id => 'm', key => 'k'", full(peers))).toBe(false);
    expect(await has(", false", full(nats - 1))).toBe(true);
    expect(await has(", false", full(nats))).toBe(false);
    await setTrace(parentOf(1), "a=1");
    expect(await has("", full(peers - 1))).toBe(false);
    expect(await has(", false", full(nats - 1))).toBe(false);
    const long = JSON.stringify({ N: Array.from({ length: 16 }, () => "x".repeat(65_500)) });
    expect(await has(", true", long)).toBe(false);
    await expect(client.query("SELECT hawser.enqueue('a', 'x', headers => '[]')")).rejects.toThrow(
      "headers must be a JSON object, and this is array",
    );
  });

  it("has the setting of a role without privileges, of its transaction alone", async () => {
    const role = `plain_${gateway.database.name}`;
    await client.query(`CREATE ROLE ${role}; GRANT hawser_peer TO ${role}`);
    try {
      await client.query("BEGIN");
      await client.query(`SET LOCAL ROLE ${role}`);
      await client.query("SELECT set_config('hawser.traceparent', $1, true)", [parentOf(6)]);
      await client.query("SELECT hawser.enqueue('a', 'x')");
      await client.query("COMMIT");
      expect(await enqueued(1)).toEqual([{ traceparent: parentOf(6) }]);
      expect(await headersAfter("SELECT hawser.enqueue('a', 'x')")).toEqual({});
      await client.query(`SET ROLE ${role}`);
      await expect(client.query("SELECT hawser.with_trace(NULL, 1)")).rejects.toThrow("permission denied");
    } finally {
      await client.query(`RESET ROLE; DROP ROLE ${role}`);
    }
  });

  it("is one of enqueue and enqueueBatch of TypeScript, too", async () => {
    await setTrace(parentOf(7));
    await enqueue(client, "a", "x");
    await enqueue(client, { subject: "a", stream: true }, { json: 1 });
    await enqueueBatch(client, "a", ["x", "y"]);
    const traceparent = parentOf(7);
    expect(await enqueued(4)).toEqual([
      { traceparent },
      { traceparent, "content-type": ["application/json"] },
      { traceparent },
      { traceparent },
    ]);
  });

  it("is not one of a schedule, whose occurrences begin traces of their own", async () => {
    await setTrace(parentOf(8));
    await client.query(
      `SELECT hawser.schedule('s', '0 0 * * *', 'a', 'x', headers => '{"N": "1"}')${commentOf(parentOf(9))}`,
    );
    expect(await gateway.value("SELECT headers FROM hawser_data.schedules")).toEqual([["N", "1"]]);
  });
});

describe("a message that is published from SQL, or handled by functions", () => {
  let world: BridgeWorld;
  beforeAll(async () => {
    world = await bridgeWorld({
      sql: `
        CREATE TABLE seen (id bigserial, text text, parent text, state text);
        CREATE FUNCTION note(payload bytea) RETURNS void LANGUAGE sql AS $$
          INSERT INTO seen (text, parent, state) VALUES (convert_from(payload, 'UTF8'),
            current_setting('hawser.traceparent', true), current_setting('hawser.tracestate', true));
          SELECT hawser.enqueue('orders', convert_from(payload, 'UTF8')) $$;
        CREATE FUNCTION note_all(payloads bytea[]) RETURNS void LANGUAGE sql AS 'SELECT note(p) FROM unnest(payloads) AS p';
        CREATE FUNCTION fail_first(payload bytea) RETURNS void LANGUAGE plpgsql AS $$BEGIN
          IF NOT EXISTS (SELECT FROM seen WHERE text = 'mercy') THEN RAISE EXCEPTION 'none'; END IF;
          PERFORM note(payload); END$$;
        CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$
          SELECT convert_to(coalesce(current_setting('hawser.traceparent', true), ''), 'UTF8') $$;`,
    });
  });
  afterAll(() => world?.[Symbol.asyncDispose]());

  const noted = (like: string) =>
    world.rows<{ text: string; parent: string | null; state: string | null }>(
      "SELECT text, parent, state FROM seen WHERE text LIKE $1 ORDER BY id",
      [like],
    );
  const passedOn = async (like: string) => {
    const rows = await world.rows<{ text: string; headers: [string, string][] | null }>(
      `SELECT convert_from(payload, 'UTF8') AS text, headers FROM hawser_data.queue
        WHERE topic = 'orders' AND convert_from(payload, 'UTF8') LIKE $1 ORDER BY id`,
      [like],
    );
    return rows.map(({ text, headers }) => ({ text, headers: Object.fromEntries(headers ?? []) }));
  };
  const traced = (parent: string, state = "") => {
    const made = natsHeaders();
    made.set("Traceparent", parent);
    if (state !== "") made.set("tracestate", state);
    return { headers: made };
  };

  it("has the context by each function that publishes", async () => {
    const subject = `${world.prefix}.published`;
    const received: Msg[] = [];
    const subscription = world.nats.subscribe(subject, { callback: (_, message) => void received.push(message) });
    await world.nats.flush();
    const session = await world.connect();
    await session.query("SELECT set_config('hawser.traceparent', $1, false)", [parentOf(1)]);
    await session.query("SELECT nats_publish_text($1, 'a')", [subject]);
    await session.query("SELECT nats_publish_binary_batch($1, ARRAY['b', 'c']::bytea[])", [subject]);
    await session.query(`SELECT nats_publish_text($1, 'd', headers => '{"TRACEPARENT": "own"}')`, [subject]);
    await session.query("RESET ALL");
    await session.query(`SELECT nats_publish_jsonb($1, '5')${commentOf(parentOf(2), ",tracestate='a%3D1'")}`, [
      subject,
    ]);
    await session.query("SELECT nats_publish_text($1, 'f')", [subject]);
    await session.query("SELECT nats_flush()");
    await session.end();
    await eventually("all have come", () => received.length === 6);
    subscription.unsubscribe();
    expect(
      received.map((message) => [
        message.string(),
        message.headers?.get("traceparent"),
        message.headers?.get("tracestate"),
      ]),
    ).toEqual([
      ["a", parentOf(1), ""],
      ["b", parentOf(1), ""],
      ["c", parentOf(1), ""],
      ["d", "", ""],
      ["5", parentOf(2), "a=1"],
      ["f", undefined, undefined],
    ]);
  });

  it("gives its context to the function, and to what the function enqueues, each of a batch its own", async () => {
    const subject = `${world.prefix}.each`;
    await world.subscribe(subject, "note(bytea)");
    for (let n = 1; n <= 40; n += 1) {
      world.nats.publish(subject, `each ${n}`, n % 4 === 0 ? {} : traced(parentOf(n), n % 2 === 0 ? `a=${n}` : ""));
    }
    await eventually("all are there", async () => (await noted("each %")).length === 40);
    const contextOf = (n: number) =>
      n % 4 === 0 ? undefined : { parent: parentOf(n), state: n % 2 === 0 ? `a=${n}` : "" };
    for (const [index, { text, parent, state }] of (await noted("each %")).entries()) {
      const context = contextOf(index + 1) ?? { parent: "", state: "" };
      expect([text, parent, state]).toEqual([`each ${index + 1}`, context.parent, context.state]);
    }
    expect(await passedOn("each %")).toEqual(
      Array.from({ length: 40 }, (_, index) => {
        const { parent, state } = contextOf(index + 1) ?? {};
        return {
          text: `each ${index + 1}`,
          headers: { ...(parent && { traceparent: parent }), ...(state && { tracestate: state }) },
        };
      }),
    );
  });

  it("gives a function of arrays the context that all of a batch have", async () => {
    const subject = `${world.prefix}.all`;
    await world.subscribe(subject, "note_all(bytea[])");
    world.nats.publish(subject, "all 1", traced(parentOf(1)));
    await eventually("it is there", async () => (await noted("all %")).length === 1);
    expect(await noted("all %")).toEqual([{ text: "all 1", parent: parentOf(1), state: "" }]);
  });

  it("has it still as a dead letter that is retried", async () => {
    const subject = `${world.prefix}.dead`;
    await world.client.query("SELECT nats_subscribe($1, 'fail_first(bytea)'::regprocedure)", [subject]);
    await world.live(subject);
    world.nats.publish(subject, "dead 1", traced(parentOf(1), "a=1"));
    const letters = () =>
      world.rows<{ id: string }>("SELECT id FROM hawser_data.dead_letters WHERE topic = $1 AND payload = 'dead 1'", [
        subject,
      ]);
    await eventually("it is dead", async () => (await letters()).length === 1);
    await world.client.query("INSERT INTO seen (text) VALUES ('mercy')");
    const store = await openStore({ databaseUrl: world.database.url });
    try {
      await store.deadLetters.retry({ ids: (await letters()).map(({ id }) => Number(id)) });
    } finally {
      await store.close();
    }
    await eventually("it is handled", async () => (await noted("dead %")).length === 1);
    expect(await noted("dead %")).toEqual([{ text: "dead 1", parent: parentOf(1), state: "a=1" }]);
    const headers = { traceparent: parentOf(1), tracestate: "a=1" };
    expect(await passedOn("dead %")).toEqual([{ text: "dead 1", headers }]);
  });

  it("of a stream gives it to the function, too, and one that is published into a stream has it", async () => {
    const name = `S${world.prefix}`;
    const manager = await jetstreamManager(world.nats);
    await manager.streams.add({ name, subjects: [`${world.prefix}.stream`] });
    const session = await world.connect();
    try {
      await session.query("SELECT nats_subscribe_stream($1, 'note(bytea)'::regprocedure, $1)", [name]);
      for (const n of [1, 2, 3]) {
        await session.query("SELECT set_config('hawser.traceparent', $1, false)", [n === 2 ? "" : parentOf(n)]);
        await session.query("SELECT nats_publish_text_stream($1, $2)", [`${world.prefix}.stream`, `stream ${n}`]);
      }
      await eventually("all are there", async () => (await noted("stream %")).length === 3);
      const parents = (await noted("stream %")).map(({ parent }) => parent ?? "");
      expect(parents).toEqual([parentOf(1), "", parentOf(3)]);
      await session.query("SELECT nats_unsubscribe_stream($1)", [name]);
    } finally {
      await session.end();
      await manager.streams.delete(name);
    }
  });

  it("that is a request gives it to its responder", async () => {
    const subject = `${world.prefix}.asked`;
    await world.client.query("SELECT litmus_pgnats_register_responder($1, 'answer(bytea)'::regprocedure)", [subject]);
    await world.live(subject);
    const ask = async (options: object) =>
      (await world.nats.request(subject, "", { timeout: 20_000, ...options })).string();
    expect(await ask(traced(parentOf(1)))).toBe(parentOf(1));
    expect(await ask(traced(invalidParents[3]!))).toBe("");
    expect(await ask({})).toBe("");
  });
});

describe("traceContextOf", () => {
  it("accepts what SQL accepts", () => {
    for (const invalid of invalidParents) expect(traceContextOf([["traceparent", invalid]]), invalid).toBeUndefined();
    for (const invalid of invalidStates) {
      const headers = [
        ["TraceParent", parentOf(1)],
        ["tracestate", invalid],
      ] as const;
      expect(traceContextOf(headers), invalid).toEqual({ parent: parentOf(1), state: "" });
    }
    expect(
      traceContextOf([
        ["tracestate", "a=1"],
        ["traceparent", parentOf(1)],
        ["TRACESTATE", "b=2"],
      ]),
    ).toEqual({
      parent: parentOf(1),
      state: "a=1,b=2",
    });
    expect(
      traceContextOf([
        ["traceparent", parentOf(1)],
        ["traceparent", parentOf(1)],
      ]),
    ).toBeUndefined();
  });

  it("is shared by messages that all have it", () => {
    const [one, other] = [
      { parent: parentOf(1), state: "" },
      { parent: parentOf(1), state: "a=1" },
    ];
    expect(sharedTrace([one, { ...one }])).toEqual(one);
    for (const traces of [[one, other], [one, undefined], [undefined, one], []])
      expect(sharedTrace(traces)).toBeUndefined();
  });
});
