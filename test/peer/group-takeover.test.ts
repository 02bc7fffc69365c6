/**
 * Groups: what is stored for a member that is gone goes to another one, and its channels go back when it runs again.
 */
import { expect, it } from "vitest";

import { silentLogger } from "../../src/foundation/runtime/index.js";
import { eventually } from "../support/eventually.js";
import { gate } from "./support/gate.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { Handler, TestPeer, TestPeerOptions } from "./support/world.js";

const world = sharedPeerWorld();

const takeover: TestPeerOptions = { defaults: { group: true, takeoverMs: 1_000 } };

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from + 1 }, (_, n) => `${from + n}`);

async function ownerOf(listener: string): Promise<string> {
  const [row] = await world.query<{ owner: string }>(
    "SELECT coalesce(owner, listener_name) AS owner FROM hawser_peer_data.channels WHERE listener_name = $1",
    [listener],
  );
  return row?.owner ?? "nobody";
}

/** `b-1` has handled "1", and is gone; "2" to "20" are stored for it, and `b-2` takes them over. */
async function takenOver(
  handler?: Handler,
  options: TestPeerOptions = {},
): Promise<{ a: TestPeer; gone: TestPeer; heir: TestPeer }> {
  const gone = await world.started("b-1", takeover);
  const a = await world.started("a-1", { tuning: { ackTimeoutMs: 2_000 } });
  await a.send("b", "1");
  await gone.stop();
  await Promise.all(numbers(2, 20).map((text) => a.send("b", text)));
  const heir = await world.started("b-2", { ...takeover, ...options }, handler);
  await eventually("b-2 has the channel", async () => (await ownerOf("b-1")) === "b-2");
  return { a, gone, heir };
}

it("a member takes over what is stored for one that is gone, in order, and gives the channel back", async () => {
  const { a, gone, heir } = await takenOver();
  await heir.received.length(19);
  expect(heir.texts).toEqual(numbers(2, 20));
  await gone.record();
  await eventually("b-1 has its channel again", async () => (await ownerOf("b-1")) === "b-1");
  await a.saw("peer_connected", ({ message }) => message.includes('"b-1"'), a.statuses.all.length - 1);
  const before = gone.texts.length;
  await eventually("b-1 gets work again", async () => {
    await Promise.all([a.send("b", "more"), a.send("b", "more")]);
    return gone.texts.length > before;
  });
  expect(await world.query("SELECT FROM hawser_peer_data.peers WHERE group_name = 'default'")).toHaveLength(2);
});

it("a channel goes back when the handler that runs has ended and is committed, and nothing is handled twice", async () => {
  const held = gate();
  const said: string[] = [];
  const debug = (_: object, message: string): void => void said.push(message);
  const { gone, heir } = await takenOver(
    ({ payload }) => (Buffer.from(payload).toString() === "5" ? held.opened : undefined),
    { logger: { ...silentLogger, debug } },
  );
  await heir.received.length(4);
  await gone.record();
  // It waits for the handler, and begins none any more.
  await eventually("it is to go back", () => said.some((text) => text.startsWith("returning a channel")));
  expect(await ownerOf("b-1")).toBe("b-2");
  held.open();
  await eventually("b-1 has the rest", () => gone.texts.at(-1) === "20");
  expect(heir.texts).toEqual(numbers(2, 5));
  expect(gone.texts).toEqual(["1", ...numbers(6, 20)]);
});

it("a message that only a member serves that is away waits for it, though another one has its channel", async () => {
  const gone = world.peer("b-1", takeover);
  await gone.recordTopic("only1");
  await gone.record();
  const a = await world.started("a-1", { tuning: { ackTimeoutMs: 2_000 } });
  await a.send("b", "0");
  await a.send("only1", "1");
  await gone.stop();
  await a.send("b", "2");
  const heir = await world.started("b-2", takeover);
  await eventually("b-2 has the channel", async () => (await ownerOf("b-1")) === "b-2");
  await heir.received.length(1);
  await a.send("only1", "3");
  await a.send("b", "4");
  await gone.record();
  await gone.received.length(3);
  expect(gone.texts).toEqual(["0", "1", "3"]);
  expect(heir.texts).toEqual(["2", "4"]);
  expect(await world.deadLetters(0)).toEqual([]);
});
