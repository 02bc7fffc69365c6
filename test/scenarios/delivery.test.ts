/**
 * Two processes that are both there.
 */

import pg from "pg";
import { expect, it } from "vitest";
import { ownDatabase, textsOf } from "./support/own-database.js";
import { peerProcess, runningPeer } from "./support/peer-process.js";

it("exchange a message and its reply through a topic that was subscribed before the start", async () => {
  const url = await ownDatabase();
  const b = peerProcess(url, "b-1", { handler: "reply" });
  await b.call("subscribe", "news");
  await b.call("run");
  const a = await runningPeer(url, "a-1");
  expect(await a.call("refreshAddressTopic", "news")).toBe(true);
  expect(await a.call("sendTo", "news", "smoke")).toMatchObject({ peer: "b-1" });
  await a.messages.length(1);
  expect(b.messages.all).toMatchObject([{ to: "news", from: "a", sender: "a-1", text: "smoke" }]);
  expect(a.messages.all).toMatchObject([{ to: "a", from: "b", sender: "b-1", text: "re smoke" }]);
});

it("have a burst of 1,000 arrive once each and in order", async () => {
  const url = await ownDatabase();
  const b = await runningPeer(url, "b-1");
  await b.call("subscribe", "burst");
  const a = await runningPeer(url, "a-1");
  const texts = Array.from({ length: 1_000 }, (_, n) => `i:${n}`);
  const receipts = await Promise.all(texts.map((text) => a.call("sendTo", "burst", text)));
  expect(receipts.filter(({ outcome }) => !/delivered|stored/.test(outcome))).toEqual([]);
  await b.messages.length(1_000);
  // Whatever came twice would have come before this.
  await a.call("sendTo", "burst", "end");
  await b.messages.find(({ text }) => text === "end");
  expect(textsOf(b)).toEqual([...texts, "end"]);
});

it("confirm within milliseconds what is sent one at a time", async () => {
  const url = await ownDatabase();
  const [a] = await Promise.all([runningPeer(url, "a-1"), runningPeer(url, "b-1")]);
  await a.call("sendTo", "b", "hello");
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  await client.query("CREATE TABLE commits (number integer)");
  const timed = async (work: () => Promise<unknown>): Promise<number> => {
    const begun = performance.now();
    await work();
    return performance.now() - begun;
  };
  const tookMs: number[] = [];
  const commitMs: number[] = [];
  for (let n = 0; n < 100; n++) {
    const send = async () => expect((await a.call("sendTo", "b", `${n}`)).outcome).toBe("delivered");
    tookMs.push(await timed(send));
    commitMs.push(await timed(() => client.query("INSERT INTO commits (number) VALUES ($1)", [n])));
  }
  await client.end();
  const ranked = (times: number[], rank: number): number => times.sort((one, other) => one - other)[rank]!;
  const [median, last, commit] = [ranked(tookMs, 50), ranked(tookMs, 99), ranked(commitMs, 50)];
  console.log(
    `from sendTo to delivered, over IPC: median ${median.toFixed(1)} ms, longest of 100 ${last.toFixed(1)} ms; ` +
      `median of a commit ${commit.toFixed(1)} ms`,
  );
  // It holds a commit. An acknowledgement that waits for a poll of a second takes half of one on average.
  expect(median - 2 * commit).toBeLessThan(250);
});

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
    expect(tookMs).toBeLessThan(10_000);
    expect(textsOf(back)[0]).toBe(`while it is away, ${end}`);
    await back.finish();
  }
});
