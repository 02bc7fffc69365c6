import { hostname } from "node:os";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { gate } from "../peer/support/gate.js";
import { type PeerWorld, peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";
import { type HawserOptions, hawser, hawserProcess, startHawser } from "./support/hawser.js";

const firstName = `send-${hostname()}-1`;

let world: PeerWorld;
let round = 0;
/** Each test has a topic of its own, and its listeners are named after it. */
let topic: string;
let listener: string;

beforeAll(async () => {
  world = await peerWorld({ nats: false });
});
afterAll(() => world[Symbol.asyncDispose]());
beforeEach(() => {
  round += 1;
  topic = `topic${round}`;
  listener = `${topic}-1`;
});

const send = (args: readonly string[], options: HawserOptions = {}) =>
  hawser(["send", ...args], { databaseUrl: world.url, ...options });

describe("hawser send", () => {
  it("takes another name while that one is in use", async () => {
    const orders = await world.started(listener);
    const ends = await Promise.all(
      ["a", "b", "c"].map((text) => hawserProcess(["send", topic, text], { databaseUrl: world.url })),
    );
    expect(ends.map(({ status }) => status)).toEqual([0, 0, 0]);
    await orders.received.length(3);
    expect(orders.texts.toSorted()).toEqual(["a", "b", "c"]);
  });

  it("does not serve the topic that it sends under: what others send there goes to its listeners", async () => {
    const { opened, open } = gate();
    const orders = await world.started(listener, {}, () => opened);
    const billing = await world.started("billing-1");
    const shop = await world.started("shop-1");
    const sending = startHawser(["send", topic, "first", "--from", "billing"], { databaseUrl: world.url });
    await orders.received.length(1);
    expect(orders.received.all).toMatchObject([{ text: "first", senderTopic: "billing", sender: firstName }]);
    for (let sent = 0; sent < 6; sent++)
      expect(await shop.send("billing", "bill")).toMatchObject({ peer: "billing-1" });
    expect(billing.texts).toHaveLength(6);
    open();
    expect(await sending.ended).toMatchObject({ status: 0 });
  });

  it("drops replies to its own name, and says so; those to a given name wait", async () => {
    const before = await world.storedMessages();
    let isTaken = async (): Promise<unknown> => undefined;
    await world.started(listener, {}, async (message) => {
      await message.reply("an answer");
      await isTaken();
    });
    expect(await send([topic, "hello", "--name", "asker"])).toMatchObject({ status: 0, stderr: "" });
    await eventually("the answer waits", async () => (await world.storedMessages()) === before + 1);
    const asker = await world.started("asker");
    await asker.received.length(1);
    expect(asker.texts).toEqual(["an answer"]);

    isTaken = () => eventually("the answer was taken", async () => (await world.storedMessages()) === before);
    expect((await send([topic, "hello"])).stderr).toBe(
      "1 reply came and was dropped; with --name, replies wait for a peer of that name\n",
    );
  });
});
