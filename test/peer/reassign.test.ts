import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { polls } from "../../src/jobs-and-peers/handlers/polls.js";
import { openStore, type Store } from "../../src/jobs-and-peers/peer-store/store.js";
import { eventually } from "../support/eventually.js";
import { noTimersAbove } from "../support/timers.js";
import { type PeerWorld, peerWorld, type TestPeer } from "./support/world.js";

describe("a hand-over of channels", () => {
  let w: PeerWorld;
  let store: Store;
  let round = 0;
  const name = (kind: string) => `${kind}-${round}`;

  beforeAll(async () => {
    w = await peerWorld({ nats: false, keepsConnections: true });
    store = await openStore({ databaseUrl: w.url });
  });
  afterAll(async () => {
    await store.close();
    await w[Symbol.asyncDispose]();
  });

  /** A sender that has met a listener which has left, and an heir that serves the same topic but is not listed for it. */
  async function scene(): Promise<{ topic: string; sender: TestPeer; lost: TestPeer; heir: TestPeer }> {
    round += 1;
    const topic = `topic${round}`;
    const sender = await w.started(name("sender"));
    const lost = await w.started(name("lost"), { topic });
    await sender.send(topic, "first");
    await lost.stop();
    const heir = await w.started(name("heir"), { topic: `other${round}` });
    return { topic, sender, lost, heir };
  }

  it("connects the sender to the new owner at once, without anything to send", async () => {
    const { sender } = await scene();
    const from = sender.statuses.all.length;
    await store.reassign({ from: name("lost"), to: name("heir") });
    const status = await sender.saw("peer_connected", ({ peer }) => peer === name("lost"), from);
    expect(status.message).toContain(name("heir"));
  });

  it("lets the sender follow the new owner when that is restarted elsewhere", async () => {
    const { topic, sender, heir } = await scene();
    await store.reassign({ from: name("lost"), to: name("heir") });
    await heir.recordTopic(topic);
    for (let restart = 0; restart < 2; restart++) {
      await eventually("it is live", async () => {
        await Promise.all([1, 2].map(() => sender.send(topic, "x")));
        const connected = sender.statuses.all.filter(({ kind }) => kind === "peer_connected");
        return connected.filter((status) => "peer" in status && status.peer === name("lost")).length > restart + 1;
      });
      await heir.stop();
      await heir.record();
    }
    await eventually("what is sent under the old name is delivered", async () => {
      const receipts = await Promise.all([sender.send(topic, "y"), sender.send(topic, "y")]);
      return receipts.every(({ outcome }) => outcome === "delivered");
    });
  });

  it("shows the new owner to a sender that is started afterwards", async () => {
    const { topic, sender, heir } = await scene();
    await sender.stop();
    await store.reassign({ from: name("lost"), to: name("heir") });
    const late = await w.started(name("sender"));
    // Nobody is listed for the topic: it goes to the one that was met.
    expect((await late.send(topic, "z")).outcome).toMatch(/delivered|stored/);
    const { message } = await late.saw("peer_connected", ({ peer }) => peer === name("lost"));
    expect(message).toContain(`"${name("heir")}"`);
    // It does not serve the topic, so that it gives it up, and has had it.
    await heir.saw("dead_letter");
  });

  it("leaves sendAll one message for each listener: the new owner gets nothing in the old one's place, too", async () => {
    const { topic, sender, lost, heir } = await scene();
    await heir.recordTopic(topic);
    await store.reassign({ from: name("lost"), to: name("heir") });
    await sender.saw("peer_connected", ({ message }) => message.includes(`"${name("heir")}"`));
    const peers = async (text: string) => (await sender.sendAll(topic, text)).map(({ peer }) => peer);
    await eventually("only the new owner is sent to", async () => {
      return JSON.stringify(await peers("to settle")) === JSON.stringify([name("heir")]);
    });
    expect(await peers("all")).toEqual([name("heir")]);
    await heir.received.find(({ text }) => text === "all");
    // Two that have each other's channels are both sent to.
    await heir.stop();
    const owned = await store.ownedChannels(name("heir"));
    const channelIds = owned.filter(({ madeFor }) => madeFor === name("heir")).map((channel) => channel.channelId);
    await store.reassign({ from: name("heir"), to: name("lost"), channelIds });
    await lost.record();
    await heir.record();
    await eventually("both are sent to", async () => (await peers("both")).length === 2);
  });

  it("shows the sender what waits under the new owner's name", async () => {
    const { topic, sender, heir } = await scene();
    await heir.stop();
    expect((await sender.send(topic, "waits")).outcome).toBe("stored");
    await store.reassign({ from: name("lost"), to: name("heir") });
    expect((await sender.pending()).count).toBe(1);
    const pending = (await sender.pending()).listeners;
    expect(pending.map(({ name: listener, count }) => [listener, count])).toEqual(
      expect.arrayContaining([
        [name("heir"), 1],
        [name("lost"), 0],
      ]),
    );
    await sender.stop();
    await sender.clearStored();
    expect(await store.ownedChannels(name("heir"))).toMatchObject([{ madeFor: name("lost"), stored: 0 }]);
  });

  it("brings a reply to the old name to the new owner", async () => {
    round += 1;
    const asker = await w.started(name("asker"));
    let reply: () => Promise<unknown> = async () => undefined;
    const answerer = await w.started(name("answerer"), {}, (message) => {
      reply = () => message.reply("answer");
    });
    await asker.send("answerer", "question");
    await answerer.received.length(1);
    await asker.stop();
    await reply();
    await store.reassign({ from: name("asker"), to: name("asker2") });
    const heir = await w.started(name("asker2"), { topic: "asker" });
    await reply();
    await heir.received.length(2);
    expect(heir.received.all).toMatchObject([{ sender: name("answerer"), text: "answer" }, { text: "answer" }]);
  });

  it("makes no break when it is undone while the sender sends", async () => {
    const { topic, sender, lost, heir } = await scene();
    // Its messages under the new owner's own name would be in another order.
    await heir.stop();
    const sent: Promise<unknown>[] = [];
    const send = (from: number, to: number) => {
      for (let n = from; n <= to; n++) sent.push(sender.send(topic, `${n}`));
    };
    send(1, 100);
    await store.reassign({ from: name("lost"), to: name("heir") });
    send(101, 200);
    await store.reassign({ from: name("heir"), to: name("lost") });
    send(201, 300);
    const before = lost.received.all.length;
    await lost.record();
    send(301, 400);
    await Promise.all(sent);
    await lost.received.length(before + 400);
    expect(lost.texts.slice(before)).toEqual(Array.from({ length: 400 }, (_, n) => `${n + 1}`));
  });

  it("by force ends the old listener with name_lost although nothing comes for it", async () => {
    round += 1;
    // Notified, not found out by a poll.
    noTimersAbove(polls.everyMs / 2);
    const idle = await w.started(name("idle"));
    await store.reassign({ from: name("idle"), to: name("heir"), force: true });
    await idle.saw("name_lost");
    // The name is free, and the peer may run again.
    await idle.stop();
    await idle.record();
    const durable = await w.started(name("durable"), { defaults: { durable: true } });
    const sender = await w.started(name("sender"));
    await sender.send("durable", "1");
    const [channel] = await store.ownedChannels(name("durable"));
    const channelIds = [channel?.channelId as number];
    await store.reassign({ from: name("durable"), to: name("heir"), channelIds, force: true });
    await durable.saw("name_lost");
  });

  it("makes no crash of a message that a clean stop left unfinished, however often that happens", async () => {
    const a = await w.started("a-1");
    const b = await w.started("b-1");
    await a.send("b", "hello");
    await b.stop();
    await a.send("b", "left");
    await store.reassign({ from: "b-1", to: "c-1" });
    for (const _ of [1, 2, 3]) {
      const c = w.peer("c-1", { topic: "b", defaults: { retry: { attempts: 2 } } });
      const messages = c.messages("b");
      await c.start();
      for await (const message of messages) {
        expect(message.attempt).toBe(1);
        break;
      }
      await c.stop();
    }
    const c = await w.started("c-1", { topic: "b", defaults: { retry: { attempts: 2 } } });
    await c.received.length(1);
    expect(c.texts).toEqual(["left"]);
  });

  it("takes retries along with their channel, to a peer that serves their topics", async () => {
    const a = await w.started("d-1");
    const b = w.peer("e-1", { topic: "t", defaults: { retry: { attempts: 1 } } });
    await b.recordTopic("u");
    await b.record(() => {
      throw new Error("no");
    });
    await a.send("u", "for u");
    await b.saw("dead_letter");
    await b.stop();
    await store.deadLetters.retry({ all: true });
    expect(await store.channelsServedBy("e-1", ["t"])).toEqual([]);
    const both = await store.channelsServedBy("e-1", ["t", "u"]);
    expect(both).toHaveLength(1);
    expect((await store.reassign({ from: "e-1", to: "f-1", channelIds: both })).length).toBe(2);
  });
});
