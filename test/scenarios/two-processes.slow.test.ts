/**
 * Two real processes, of which one is killed at the moment that matters.
 */
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { ownDatabase, storedMessages, textsOf } from "./support/own-database.js";
import { runningPeer } from "./support/peer-process.js";

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

it("a killed listener repeats the message in work, and none of those that were done behind it", async () => {
  const url = await ownDatabase();
  const a = await runningPeer(url, "a-1");
  const held = await runningPeer(url, "b-1", { handler: "holdFirst", concurrency: 8 });
  const texts = Array.from({ length: 300 }, (_, n) => `${n}`);
  const sent = texts.map((text) => a.call("sendTo", "b", text, { key: text }).catch(() => undefined));
  await held.messages.length(300);
  await eventually("it alone is left, as a row of the queue", async () => {
    const [row] = await rowsOf(
      url,
      "SELECT (SELECT count(*) FROM hawser_data.queue)::int AS rows, number::int FROM hawser_peer_data.cursors",
    );
    return row?.["rows"] === 1 && row["number"] === 300;
  });
  await held.crash();
  const back = await runningPeer(url, "b-1");
  await Promise.all(sent);
  await a.call("sendTo", "b", "end");
  await eventually("the last one has come", () => textsOf(back).includes("end"));
  expect(textsOf(back)).toEqual([held.messages.all[0]!.text, "end"]);
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
    "SELECT epoch::text, number::int FROM hawser_peer_data.stored_messages ORDER BY epoch, number",
  );
  expect(rows.map((row) => row["number"])).toEqual([4, 1, 2]);
  expect(new Set(rows.map((row) => row["epoch"])).size).toBe(2);
  const back = await runningPeer(url, "b-1");
  await back.messages.length(3);
  await second.call("sendTo", "b", "7");
  await back.messages.length(4);
  expect([...textsOf(b), ...textsOf(back)]).toEqual(["1", "2", "3", "4", "5", "6", "7"]);
});
