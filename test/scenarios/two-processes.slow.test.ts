/**
 * Two real processes: exchanging messages, missing each other, killed at the moment that matters, coming back.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { tuningSettingsDefaults } from "../../generated/ts/settings/peer.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { ownDatabase, storedMessages, textsOf } from "./support/own-database.js";
import { peerProcess, runningPeer } from "./support/peer-process.js";

it("end by themselves also when they are stopped in the middle of much", async () => {
  const url = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  await a.call("beginStream", { topic: "b", prefix: "x", window: 500, perSecond: 100 });
  await a.unconfirmed.length(1);
  const taken: string[] = [];
  for (let round = 0; round < 5; round++) {
    const b = await runningPeer(url, "b-1");
    await b.messages.length(1);
    await a.call("hurryStream", 1_000);
    await b.messages.length(100);
    expect(await b.finish()).toEqual({ status: 0, signal: null });
    taken.push(...textsOf(b));
  }
  const last = await a.call("endStream");
  expect(await a.finish()).toEqual({ status: 0, signal: null });
  const refused = new Set(a.unconfirmed.all.map(({ number }) => number));
  const b = await runningPeer(url, "b-1");
  await b.messages.find(({ text }) => text === `x ${last}`);
  // Each once and in order, over all the stops.
  const sent = Array.from({ length: last }, (_, n) => n + 1).filter((number) => !refused.has(number));
  expect([...taken, ...textsOf(b)]).toEqual(sent.map((number) => `x ${number}`));
});

const rounds = 200;
const limitMs = 60_000;

it.each([1, 10])(
  "do not wait for ever when handlers await a send to the other: 200 rounds, %i going round",
  {
    timeout: limitMs + 30_000,
  },
  async (messages) => {
    const url = await ownDatabase();
    // As users have it.
    const { ackTimeoutMs } = tuningSettingsDefaults;
    const [a, b] = await Promise.all([
      runningPeer(url, "a-1", { handler: "round", tuning: { ackTimeoutMs } }),
      runningPeer(url, "b-1", { handler: "round", tuning: { ackTimeoutMs } }),
    ]);
    // From a to b and back again is a round; each handler ends when its send is confirmed.
    const names = Array.from({ length: messages }, (_, n) => `m${n}`);
    const hops = (2 * rounds) / messages;
    for (const name of names) void a.call("sendTo", "b", `${name} ${hops - 1}`);
    await a.messages.until("all have come back for the last time", (all) => all.length === rounds, limitMs);
    // Each came once on each of its ways.
    const expected = (odd: 0 | 1) =>
      names.flatMap((name) => Array.from({ length: hops / 2 }, (_, n) => `${name} ${2 * n + odd}`)).sort();
    expect(textsOf(a).sort()).toEqual(expected(0));
    await b.messages.length(expected(1).length);
    expect(textsOf(b).sort()).toEqual(expected(1));
    expect(await Promise.all([a.finish(), b.finish()])).toEqual(Array(2).fill({ status: 0, signal: null }));
  },
);

it("are live again at once when the listener is back", async () => {
  const url = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  for (const end of ["finish", "crash"] as const) {
    const b = await runningPeer(url, "b-1");
    // What is delivered is committed, and everything before it.
    while ((await a.call("sendTo", "b", "hello")).outcome !== "delivered");
    await b[end]();
    expect((await a.call("sendTo", "b", `while it is away, ${end}`)).outcome).toBe("stored");
    const heard = a.statuses.all.length;
    const back = await runningPeer(url, "b-1");
    const begun = performance.now();
    await a.statuses.find(({ kind }) => kind === "peer_connected", heard);
    while ((await a.call("sendTo", "b", "live?")).outcome !== "delivered");
    const tookMs = performance.now() - begun;
    console.log(`live again ${tookMs.toFixed(0)} ms after the listener's start (it had ended by ${end})`);
    await back.messages.length(1);
    expect(textsOf(back)[0]).toBe(`while it is away, ${end}`);
    await back.finish();
  }
});

it("a stored message stays in the table until its handler is done: a listener killed in between finds it again", async () => {
  const url = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  const met = await runningPeer(url, "b-1");
  await a.call("sendTo", "b", "hello");
  await met.finish();
  for (const text of ["1", "2"]) expect((await a.call("sendTo", "b", text)).outcome).toBe("stored");
  // From here on only the table has them.
  await a.crash();
  const held = await runningPeer(url, "b-1", { handler: "hold" });
  await held.messages.length(1);
  expect(textsOf(held)).toEqual(["1"]);
  expect(await storedMessages(url)).toBe(2);
  await held.crash();
  expect(await storedMessages(url)).toBe(2);
  const back = await runningPeer(url, "b-1");
  await back.messages.length(2);
  expect(textsOf(back)).toEqual(["1", "2"]);
  await eventually("they are gone from the table", async () => (await storedMessages(url)) === 0);
});

it("a sender that was killed numbers anew under a greater epoch: nothing new is taken for a duplicate", async () => {
  const url = await ownDatabase();
  const b = await runningPeer(url, "b-1");
  const first = await runningPeer(url, "a-1");
  for (const text of ["1", "2", "3"]) expect((await first.call("sendTo", "b", text)).outcome).toBe("delivered");
  await b.finish();
  expect((await first.call("sendTo", "b", "4")).outcome).toBe("stored");
  await first.crash();
  const second = await runningPeer(url, "a-1");
  for (const text of ["5", "6"]) expect((await second.call("sendTo", "b", text)).outcome).toBe("stored");
  const rows = await rowsOf(
    url,
    "SELECT epoch::text, number::int FROM hawser_data.stored_messages ORDER BY epoch, number",
  );
  expect(rows.map((row) => row["number"])).toEqual([4, 1, 2]);
  expect(new Set(rows.map((row) => row["epoch"])).size).toBe(2);
  const back = await runningPeer(url, "b-1");
  await back.messages.length(3);
  await second.call("sendTo", "b", "7");
  await back.messages.length(4);
  expect([...textsOf(b), ...textsOf(back)]).toEqual(["1", "2", "3", "4", "5", "6", "7"]);
});

it("cannot have one name: the second ends with name_in_use, and gets the name when the first is killed", async () => {
  const url = await ownDatabase();
  const first = await runningPeer(url, "twin-1");
  const [impatient, patient] = [
    peerProcess(url, "twin-1", { nameWaitMs: 500 }),
    peerProcess(url, "twin-1", { nameWaitMs: 60_000 }),
  ];
  await expect(impatient.call("run")).rejects.toMatchObject({
    code: "name_in_use",
    message: expect.stringContaining('"twin-1"'),
  });
  // The one that has the name is not troubled.
  const a = await runningPeer(url, "twinsender-1");
  expect((await a.call("sendTo", "twin", "1")).outcome).toBe("delivered");
  const running = patient.call("run");
  await patient.ready();
  await first.crash();
  await running;
  expect((await a.call("sendTo", "twin", "2")).outcome).toMatch(/delivered|stored/);
  await patient.messages.length(1);
  expect(textsOf(patient)).toEqual(["2"]);
  // The impatient one has ended as if nothing were: it may be tried again, and is refused again.
  await expect(impatient.call("run")).rejects.toMatchObject({ code: "name_in_use" });
  expect((await impatient.finish()).status).toBe(0);
});

it("leave a database that the operator's queries run on as written, with the schema on the search path", async () => {
  const url = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  const b = await runningPeer(url, "b-1", { topic: "my_topic" });
  await a.call("sendTo", "my_topic", "1");
  await b.finish();
  const client = new pg.Client({ connectionString: url, options: "-c search_path=hawser,hawser_data" });
  await client.connect();
  try {
    const one = async (text: string): Promise<Record<string, unknown>[]> => (await client.query(text)).rows;
    // As an operator pre-registers a listener.
    await one(`INSERT INTO topic_addr (topic, addr, client_name) VALUES ('my_topic', '127.0.0.1:4100', 'b-1')
               ON CONFLICT (topic, addr) DO UPDATE SET client_name = excluded.client_name`);
    await a.call("sendTo", "my_topic", "2");
    expect(await one("SELECT * FROM topic_addr WHERE topic = 'my_topic';")).toMatchObject([
      { topic: "my_topic", addr: "127.0.0.1:4100", client_name: "b-1" },
    ]);
    expect(await one("SELECT COUNT(*) FROM conn_messages WHERE connection_key = 1;")).toEqual([
      { count: expect.stringMatching(/^\d+$/) },
    ]);
    expect((await client.query("SELECT v FROM conn_mess_number WHERE connection_key = 1;")).fields).toMatchObject([
      { name: "v" },
    ]);
    // And with the id of the channel that was used.
    const [channel] = await one("SELECT connection_key AS key FROM conn_key_map WHERE composite = 'a-1:a:b-1'");
    const key = channel?.["key"] as number;
    expect(await one(`SELECT COUNT(*) FROM conn_messages WHERE connection_key = ${key};`)).toEqual([{ count: "1" }]);
    expect(await one(`SELECT v FROM conn_mess_number WHERE connection_key = ${key};`)).toEqual([{ v: "1" }]);
    const routes = await one("SELECT listener_topic, listener_name FROM routes WHERE sender_key = 'a-1:a'");
    expect(routes).toMatchObject([{ listener_topic: "my_topic", listener_name: "b-1" }]);
  } finally {
    await client.end();
  }
});
