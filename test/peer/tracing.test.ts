/**
 * Traces of transactional handlers: what a handler enqueues continues the trace of its message.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { enqueue } from "../../src/jobs-and-peers/peer/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { eventually } from "../support/eventually.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const parentOf = (trace: number): string => `00-${String(trace).padStart(32, "0")}-00f067aa0ba902b7-01`;
const settingsSql =
  "SELECT current_setting('hawser.traceparent', true) AS parent, current_setting('hawser.tracestate', true) AS state";
const textOf = ({ payload }: { readonly payload: Uint8Array }) => Buffer.from(payload).toString();

/** Headers of the messages with the topic, by payload. */
async function traces(topic: string): Promise<Record<string, Record<string, string>>> {
  const rows = await world.query<{ text: string; headers: [string, string][] | null }>(
    "SELECT convert_from(payload, 'UTF8') AS text, headers FROM hawser_data.queue WHERE topic = $1",
    [topic],
  );
  return Object.fromEntries(rows.map(({ text, headers }) => [text, Object.fromEntries(headers ?? [])]));
}

it("a transactional handler enqueues within the trace of its message, also when it is tried again, and retried when dead", async () => {
  const seen: (readonly [text: string, attempt: number, parent: string])[] = [];
  let fails = true;
  const a = await world.started("a-1");
  const b = world.peer("b-1", { concurrency: 1 });
  const retry = { attempts: 2, delayMs: 1 };
  await b.handle("orders", { transactional: true, retry }, async (message) => {
    const { client } = message;
    const { rows } = await client.query(settingsSql);
    seen.push([textOf(message), message.attempt, rows[0].parent ?? ""]);
    await enqueue(client, "later", textOf(message));
    await client.query("SELECT hawser.enqueue('from-sql', $1::text)", [textOf(message)]);
    if (fails && textOf(message) === "two") throw new Error("not yet");
  });
  await b.start();
  await a.send("orders", "one", { headers: { traceparent: parentOf(1), tracestate: "a=1" } });
  await a.send("orders", "two", { headers: { TraceParent: parentOf(2) } });
  await a.send("orders", "three");
  await a.send("orders", "four", { headers: { traceparent: "00-x", tracestate: "a=1" } });
  await eventually("all others are done", async () => Object.keys(await traces("later")).length === 3);
  fails = false;
  const store = await openStore({ databaseUrl: world.url });
  try {
    await eventually("one is dead", async () => (await store.deadLetters.list()).length === 1);
    await store.deadLetters.retry({ all: true });
  } finally {
    await store.close();
  }
  await eventually("it is done", async () => "two" in (await traces("later")));
  const expected = {
    one: { traceparent: parentOf(1), tracestate: "a=1" },
    two: { traceparent: parentOf(2) },
    three: {},
    four: {},
  };
  expect(await traces("later")).toEqual(expected);
  expect(await traces("from-sql")).toEqual(expected);
  const parents = { one: parentOf(1), two: parentOf(2), three: "", four: "" };
  for (const [text, , parent] of seen) expect(parent).toBe(parents[text as keyof typeof parents]);
  expect(seen.filter(([text]) => text === "two").map(([, attempt]) => attempt)).toEqual([1, 2, 1]);
});

it("a batch has the trace that all its messages have, and none otherwise", async () => {
  const seen: (readonly [string, string])[] = [];
  const b = world.worker("b-1");
  await b.handleBatch(
    "orders",
    { transactional: true, maxMessages: 2, waitMs: 60_000 },
    async (messages, { client }) => {
      const { rows } = await client.query(settingsSql);
      seen.push([messages.map(textOf).sort().join(" "), rows[0].parent]);
    },
  );
  const client = new pg.Client({ connectionString: world.url });
  await client.connect();
  await client.query("BEGIN");
  for (const [text, headers] of [
    ["one", { traceparent: parentOf(1) }],
    ["two", { traceparent: parentOf(1) }],
    ["three", { traceparent: parentOf(1) }],
    ["four", {}],
  ] as const) {
    await enqueue(client, "orders", text, { headers });
  }
  await client.query("COMMIT");
  await client.end();
  await b.start();
  await eventually("both batches are done", () => seen.length === 2);
  expect(seen).toEqual([
    ["one two", parentOf(1)],
    ["four three", ""],
  ]);
});

it("a handler has no trace of the pool's session", async () => {
  const b = world.peer("b-1");
  const seen: string[] = [];
  await b.handle("orders", { transactional: true }, async ({ client }) => {
    seen.push((await client.query(settingsSql)).rows[0].parent ?? "");
    await client.query("SELECT set_config('hawser.traceparent', $1, false)", [parentOf(9)]);
  });
  await b.start();
  const a = await world.started("a-1");
  for (const text of ["one", "two", "three"]) await a.send("orders", text);
  await eventually("all are done", () => seen.length === 3);
  expect(seen).toEqual(["", "", ""]);
});
