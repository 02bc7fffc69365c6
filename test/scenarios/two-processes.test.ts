/**
 * Two real processes: exchanging messages, missing each other, coming back.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { ownDatabase, textsOf } from "./support/own-database.js";
import { peerProcess, runningPeer } from "./support/peer-process.js";

it("exchange messages and replies, once each and in order", async () => {
  const url = await ownDatabase();
  const [a, b] = await Promise.all([runningPeer(url, "a-1"), runningPeer(url, "b-1", { handler: "reply" })]);
  expect(a.pid).not.toBe(b.pid);
  const sent = Array.from({ length: 500 }, (_, n) => a.call("sendTo", "b", `${n}`));
  const receipts = await Promise.all(sent);
  expect(receipts.every(({ outcome, peer }) => peer === "b-1" && /delivered|stored/.test(outcome))).toBe(true);
  await Promise.all([a.messages.length(500), b.messages.length(500)]);
  expect(textsOf(b)).toEqual(sent.map((_, n) => `${n}`));
  expect(textsOf(a)).toEqual(sent.map((_, n) => `re ${n}`));
  expect(a.messages.all[0]).toMatchObject({ from: "b", sender: "b-1", to: "a" });
  // Both end by themselves: a stopped peer leaves no socket, session or timer behind.
  expect(await Promise.all([a.finish(), b.finish()])).toEqual(Array(2).fill({ status: 0, signal: null }));
  expect([a.output, b.output]).toEqual(["", ""]);
});

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

it("need not run at the same time: what was stored by a sender that has exited reaches a listener never met", async () => {
  const url = await ownDatabase();
  await onServer(url, "INSERT INTO hawser.topic_addr (topic, addr, client_name) VALUES ('b', '127.0.0.1:1', 'b-1')");
  const a = await runningPeer(url, "a-1");
  for (const text of ["1", "2", "3"]) expect((await a.call("sendTo", "b", text)).outcome).toBe("stored");
  expect(await a.finish()).toEqual({ status: 0, signal: null });
  const count = "SELECT count(*)::int AS count FROM hawser.conn_messages";
  expect(await rowsOf(url, count)).toEqual([{ count: 3 }]);
  const b = await runningPeer(url, "b-1");
  await b.messages.length(3);
  expect(textsOf(b)).toEqual(["1", "2", "3"]);
  await eventually("they are gone from the store", async () => (await rowsOf(url, count))[0]?.["count"] === 0);
  expect((await b.finish()).status).toBe(0);
});

it("get back what was replied to a sender that had left", async () => {
  const url = await ownDatabase();
  const b = await runningPeer(url, "b-1", { handler: "reply" });
  const a = await runningPeer(url, "a-1");
  await a.call("sendTo", "b", "first");
  await a.messages.length(1);
  await b.finish();
  expect((await a.call("sendTo", "b", "second")).outcome).toBe("stored");
  await a.finish();
  const again = await runningPeer(url, "b-1", { handler: "reply" });
  await again.messages.length(1);
  await eventually("the reply is stored", async () => (await again.call("pendingCount")) === 1);
  expect((await again.finish()).status).toBe(0);
  const back = await runningPeer(url, "a-1");
  await back.messages.length(1);
  expect(back.messages.all).toMatchObject([{ from: "b", sender: "b-1", text: "re second" }]);
});

it("go on where they were after both were restarted, in good order or not", async () => {
  const url = await ownDatabase();
  for (const end of ["finish", "crash"] as const) {
    const names = [`re${end}.a-1`, `re${end}.b-1`] as const;
    const topic = `re${end}.b`;
    let [a, b] = await Promise.all([runningPeer(url, names[0]), runningPeer(url, names[1])]);
    for (const text of ["1", "2"]) await a.call("sendTo", topic, text);
    await b[end]();
    for (const text of ["3", "4"]) expect((await a.call("sendTo", topic, text)).outcome).toBe("stored");
    await a[end]();
    const before = textsOf(b);
    [a, b] = await Promise.all([runningPeer(url, names[0]), runningPeer(url, names[1])]);
    for (const text of ["5", "6"]) await a.call("sendTo", topic, text);
    await b.messages.length(4);
    expect([...before, ...textsOf(b)]).toEqual(["1", "2", "3", "4", "5", "6"]);
    await Promise.all([a.finish(), b.finish()]);
  }
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
  const begun = performance.now();
  await running;
  const tookMs = performance.now() - begun;
  // Less than it is waited for by default.
  expect(tookMs).toBeLessThan(10_000);
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
  const client = new pg.Client({ connectionString: url, options: "-c search_path=hawser" });
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
    // And with the key of the channel that was used.
    const [channel] = await one("SELECT connection_key AS key FROM conn_key_map WHERE composite = 'a-1:a:b-1'");
    const key = channel?.["key"] as number;
    expect(await one(`SELECT COUNT(*) FROM conn_messages WHERE connection_key = ${key};`)).toEqual([{ count: "1" }]);
    expect(await one(`SELECT v FROM conn_mess_number WHERE connection_key = ${key};`)).toEqual([{ v: "1" }]);
    expect(
      await one("SELECT addr, listener_topic, client_name FROM sender_listener WHERE sender_key = 'a-1:a'"),
    ).toMatchObject([{ listener_topic: "my_topic", client_name: "b-1" }]);
    expect(await one("SELECT id, v FROM seq")).toMatchObject([{ id: 1 }]);
    expect(await one("SELECT topic FROM topic_key WHERE topic = 'my_topic'")).toHaveLength(1);
    expect(await one(`SELECT sender_topic FROM conn_sender WHERE connection_key = ${key}`)).toEqual([
      { sender_topic: "a" },
    ]);
  } finally {
    await client.end();
  }
});
