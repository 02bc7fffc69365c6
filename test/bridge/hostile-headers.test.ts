import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { plainMessage, rawMessage, rawService, writeRaw } from "../support/raw-nats.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;
const natsUrl = testNatsUrl();

beforeAll(async () => {
  world = await bridgeWorld({
    sql: `
      CREATE TABLE plain (id bigserial, subject text, word text);
      CREATE TABLE with_headers (id bigserial, subject text, word text, headers jsonb);
      CREATE FUNCTION takes_none(payload bytea, subject text) RETURNS void LANGUAGE sql AS $$
        INSERT INTO plain (subject, word) SELECT subject, convert_from(payload, 'UTF8') WHERE payload <> '' $$;
      CREATE FUNCTION takes_headers(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql AS $$
        INSERT INTO with_headers (subject, word, headers)
        SELECT subject, convert_from(payload, 'UTF8'), headers WHERE payload <> '' $$;
      CREATE FUNCTION echo(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload';
    `,
  });
});
afterAll(async () => world?.[Symbol.asyncDispose]());

const manyNames = (count: number): string =>
  Array.from({ length: count }, (_, index) => `h${index.toString(36)}:`).join("\r\n");

/** Number of lost connections of this process. */
const losses = (): number => world.log.messages("warn").filter((line) => line.includes("is lost")).length;

const blocks: Readonly<Record<string, readonly [lines: string | Uint8Array, readable: boolean]>> = {
  "a name with a space": ["a b: c", true],
  "a line break in a value": ["A: x\ny: z", true],
  "a line break, and no colon behind it": ["A: x\ny", false],
  "a carriage return in a value": ["A: x\ry", true],
  "a name that is no ASCII": ["hé: x", true],
  "bytes that are no UTF-8": [Buffer.from([0x41, 0x3a, 0xff, 0xfe, 0x80]), true],
  "a line without a colon": ["no colon at all", false],
  "no name": [": nameless", true],
  "no line": ["", true],
  "names that objects have": ["__proto__: x\r\nconstructor: y", true],
  "90,000 names": [manyNames(90_000), true],
  "90,000 values of a name": ["a:\r\n".repeat(90_000).trimEnd(), true],
  "more headers than are read": ["a:\r\n".repeat(200_000).trimEnd(), false],
};

it("runs all that is before and behind messages with such headers, and dead-letters those that cannot be read", async () => {
  const lossesBefore = losses();
  const subject = `${world.prefix}.hostile`;
  await world.client.query("SELECT nats_subscribe($1, 'takes_headers(bytea, text, jsonb)'::regprocedure)", [subject]);
  await world.subscribe(subject, "takes_none(bytea, text)");
  await world.value("SELECT litmus_pgnats_reload_conf()");
  const between = Array.from({ length: 20 }, (_, index) => `${index}`);
  const plain = between.map((word) => plainMessage(subject, word));
  const hostile = Object.entries(blocks).flatMap(([what, [lines]]) => [rawMessage(subject, lines, what), ...plain]);
  await writeRaw(natsUrl, ...plain, ...hostile);
  const ran = async (table: string): Promise<string[]> =>
    (await world.rows<{ word: string }>(`SELECT word FROM ${table} WHERE subject = $1 ORDER BY id`, [subject])).map(
      ({ word }) => word,
    );
  const expected = (isThere: (readable: boolean) => boolean) => [
    ...between,
    ...Object.entries(blocks).flatMap(([what, [, readable]]) => [...(isThere(readable) ? [what] : []), ...between]),
  ];
  const [all, readable] = [expected(() => true), expected((readable) => readable)];
  await eventually("all have run", async () => (await ran("plain")).length >= all.length);
  await eventually("all have run", async () => (await ran("with_headers")).length >= readable.length);
  expect(await ran("plain")).toEqual(all);
  expect(await ran("with_headers")).toEqual(readable);
  const unreadable = Object.keys(blocks).filter((what) => !blocks[what]![1]);
  const letters = () =>
    world.rows(
      `SELECT convert_from(payload, 'UTF8') AS payload, error_code, error_message
         FROM hawser_data.dead_letters WHERE topic = $1 ORDER BY id`,
      [subject],
    );
  await eventually("they are dead letters", async () => (await letters()).length >= unreadable.length);
  const error_message = expect.stringMatching(
    /^the message has headers that cannot be read, and the function takes headers: /,
  );
  expect(await letters()).toEqual(unreadable.map((payload) => ({ payload, error_code: "NA006", error_message })));
  expect(losses()).toBe(lossesBefore);
  expect(world.log.messages("error")).toEqual([]);
});

it("passes headers as they were read", async () => {
  const subject = `${world.prefix}.read`;
  await world.subscribe(subject, "takes_headers(bytea, text, jsonb)");
  await writeRaw(natsUrl, rawMessage(subject, "a b: c\r\nTag:1\nTag: 2\r\n__proto__: p\r\n: nothing", "read"));
  const rows = () => world.rows("SELECT headers FROM with_headers WHERE word = 'read'");
  await eventually("it has run", async () => (await rows()).length === 1);
  expect(await rows()).toEqual([
    {
      headers: Object.fromEntries([
        ["a b", ["c"]],
        ["Tag", ["1", "2"]],
        ["__proto__", ["p"]],
      ]),
    },
  ]);
});

it("makes a dead letter of what jsonb cannot hold, and a retry of what could not be read hands over what was", async () => {
  const subject = `${world.prefix}.letters`;
  await world.subscribe(subject, "takes_headers(bytea, text, jsonb)");
  await writeRaw(natsUrl, rawMessage(subject, "A: x\0y", "nul"), rawMessage(subject, "A: 1\r\nB\r\nC: 2", "partly"));
  const letters = () =>
    world.rows<{ id: string; word: string; error_code: string; headers: unknown }>(
      `SELECT id, convert_from(payload, 'UTF8') AS word, error_code, headers
         FROM hawser_data.dead_letters WHERE topic = $1 ORDER BY id`,
      [subject],
    );
  await eventually("both are dead letters", async () => (await letters()).length === 2);
  const [nul, partly] = await letters();
  expect(nul).toMatchObject({ word: "nul", error_code: "22P05" });
  const read = [
    ["A", "1"],
    ["C", "2"],
  ];
  expect(partly).toMatchObject({ word: "partly", error_code: "NA006", headers: read });
  await world.client.query("SELECT FROM hawser.retry_dead_letters(ARRAY[$1::bigint])", [partly!.id]);
  const ran = () => world.rows("SELECT headers FROM with_headers WHERE word = 'partly'");
  await eventually("it has run", async () => (await ran()).length === 1);
  expect(await ran()).toEqual([{ headers: { A: ["1"], C: ["2"] } }]);
});

it("answers calls of SQL beside messages of 90,000 headers", async () => {
  const subject = `${world.prefix}.heavy`;
  await world.subscribe(subject, "takes_headers(bytea, text, jsonb)");
  await writeRaw(natsUrl, rawMessage(subject, manyNames(90_000), "heavy"));
  // With its time limit: the square of the number took more than 60 seconds.
  await world.value("SELECT nats_flush()");
  const heavy = "SELECT count(*) FROM with_headers WHERE word = 'heavy'";
  await world.counts(1, heavy);
});

describe("a responder", () => {
  it("refuses a request whose headers cannot be read, and answers the next one", async () => {
    const subject = `${world.prefix}.echo`;
    await world.client.query("SELECT litmus_pgnats_register_responder($1, 'echo'::regproc)", [subject]);
    await world.live(subject);
    const inbox = `${world.prefix}.answers`;
    const answers: { readonly words: string; readonly code: string; readonly payload: string }[] = [];
    const subscription = world.nats.subscribe(inbox, {
      callback: (_error, message) => {
        const { headers } = message;
        const words = headers?.get("Nats-Service-Error") ?? "";
        answers.push({ words, code: headers?.get("Nats-Service-Error-Code") ?? "", payload: message.string() });
      },
    });
    onTestFinished(() => subscription.unsubscribe());
    await world.nats.flush();
    const ask = (lines: string) => rawMessage(`${subject} ${inbox}`, lines, "hello");
    await writeRaw(natsUrl, ask("no colon"), ask("a b: c"), ask(manyNames(90_000)));
    await eventually("all are answered", () => answers.length === 3);
    answers.sort((one, other) => other.code.localeCompare(one.code));
    expect(answers).toEqual([
      {
        words: "the headers of the request cannot be read: line 2 of them has no colon; the function was not run",
        code: "400",
        payload: "",
      },
      { words: "", code: "", payload: "hello" },
      { words: "", code: "", payload: "hello" },
    ]);
    expect(world.log.messages("error")).toEqual([]);
  });
});

describe("an answer to nats_request", () => {
  it.each([
    ["a name with a space", "a b: c", "fine"],
    ["a name with a space, and no payload", "a b: c", ""],
    ["10,000 headers", manyNames(10_000), "fine"],
    ["10,000 headers, and no payload", manyNames(10_000), ""],
  ])("has %s", async (what, lines, payload) => {
    const subject = `${world.prefix}.svc.${what.replaceAll(/\W/g, "_")}`;
    const lossesBefore = losses();
    onTestFinished(await rawService(natsUrl, subject, lines, payload));
    expect(await world.value("SELECT nats_request_text($1, 'x', 20000)", [subject])).toEqual(Buffer.from(payload));
    expect(losses()).toBe(lossesBefore);
  });

  it.each(["", "a payload"])("that cannot be read is an error of the call alone; payload: '%s'", async (payload) => {
    const subject = `${world.prefix}.svc.unreadable${payload.length}`;
    const lossesBefore = losses();
    onTestFinished(await rawService(natsUrl, subject, "no colon", payload));
    const error = await world.errorOf("SELECT nats_request_text($1, 'x', 20000)", [subject]);
    expect(error.code).toBe("NA006");
    expect(error.message).toBe(
      `The answer to the request to "${subject}" has headers that cannot be read: line 2 of them has no colon.`,
    );
    expect(losses()).toBe(lossesBefore);
  });
});

it.each([
  ["a name with a space", "a b: c", "value"],
  ["a line without a colon", "no colon", "value"],
  ["5,000 headers", manyNames(5_000), "value"],
  ["a deletion among others", "a b: c\r\nKV-Operation: DEL", null],
])("a value in a bucket, published with %s, is read", async (what, lines, expected) => {
  const bucket = `headers_${world.prefix}`;
  const key = what.replaceAll(/\W/g, "_");
  await world.value("SELECT nats_put_text($1, $2, 'before')", [bucket, key]);
  await writeRaw(natsUrl, rawMessage(`$KV.${bucket}.${key}`, lines, "value"));
  const get = () => world.value("SELECT nats_get_text($1, $2)", [bucket, key]);
  // Its stream stores it some time after the server has taken it.
  await eventually("it is stored", async () => (await get()) !== "before");
  expect(await get()).toBe(expected);
});

it("runs saved messages whose rows have malformed headers, or makes dead letters of them, and goes on", async () => {
  const subject = `${world.prefix}.saved`;
  await world.client.query("SELECT nats_subscribe($1, 'takes_headers(bytea, text, jsonb)'::regprocedure)", [subject]);
  await world.subscribe(subject, "takes_none(bytea, text)");
  const saved: Readonly<Record<string, string | null>> = {
    ...{
      none: null,
      "a list": "[]",
      "no JSON": "traceparent",
      "a text": '"traceparent"',
      "a text in it": '{"a": "b"}',
    },
    ...{ "a number in it": '{"traceparent": [1]}', "cut off": '{"traceparent": ["00', good: '{"A": ["1"]}' },
  };
  await world.client.query(
    `WITH saved AS (
       INSERT INTO hawser_bridge_data.saved_messages (handler_id, subject, payload, headers, message_id)
       SELECT h.id, h.subject, convert_to(s.word, 'UTF8'), s.headers, 'saved ' || s.n
         FROM hawser_bridge_data.nats_handlers AS h, unnest($2::text[], $3::text[]) WITH ORDINALITY AS s (word, headers, n)
        WHERE h.subject = $1 ORDER BY h.id, s.n
     ) SELECT pg_notify('hawser_nats_handlers', '{}')`,
    [subject, Object.keys(saved), Object.values(saved)],
  );
  const words = async (table: string) =>
    (await world.rows<{ word: string }>(`SELECT word FROM ${table} WHERE subject = $1 ORDER BY id`, [subject])).map(
      ({ word }) => word,
    );
  await eventually("all have run", async () => (await words("plain")).length === Object.keys(saved).length);
  await eventually("the last one has run", async () => (await words("with_headers")).includes("good"));
  expect(await words("plain")).toEqual(Object.keys(saved));
  expect(await words("with_headers")).toEqual(["none", "good"]);
  const letters = await world.rows(
    `SELECT convert_from(payload, 'UTF8') AS payload, error_code, error_message FROM hawser_data.dead_letters
      WHERE topic = $1 ORDER BY id`,
    [subject],
  );
  const error_message =
    "the message has headers that cannot be read, and the function takes headers: the saved row has no JSON object of lists of strings";
  expect(letters).toEqual(
    Object.keys(saved)
      .slice(1, -1)
      .map((payload) => ({ payload, error_code: "NA006", error_message })),
  );
  await world.counts(0, "SELECT count(*) FROM hawser_bridge_data.saved_messages");
  expect(world.log.messages("error")).toEqual([]);
});
