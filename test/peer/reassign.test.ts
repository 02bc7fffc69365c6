import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { polls } from "../../src/jobs-and-peers/handlers/polls.js";
import { openStore, type Store } from "../../src/jobs-and-peers/peer-store/store.js";
import { eventually } from "../support/eventually.js";
import { noTimersAbove } from "../support/timers.js";
import { type PeerWorld, peerWorld, type TestPeer } from "./support/world.js";

describe("a hand-over of stored messages", () => {
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

  it("gives them to the new listener alone, in order", async () => {
    const { topic, sender, heir } = await scene();
    const texts = Array.from({ length: 20 }, (_, n) => `${n}`);
    await Promise.all(texts.map((text) => sender.send(topic, text)));
    expect((await sender.pending()).count).toBe(20);
    const released = await store.reassign({ from: name("lost"), to: name("heir") });
    expect(released).toMatchObject([{ channelName: `${name("sender")}:sender:${name("lost")}`, stored: 20 }]);
    expect((await sender.pending()).count).toBe(0);
    const other = await w.started(name("third"), { topic });
    await heir.recordTopic(topic);
    await heir.received.length(20);
    expect(heir.texts).toEqual(texts);
    expect(other.texts).toEqual([]);
    await w.handled();
  });

  it("leaves sendAll one message for each listener: the new one gets nothing in the old one's place, too", async () => {
    const { topic, sender, heir } = await scene();
    await heir.recordTopic(topic);
    await store.reassign({ from: name("lost"), to: name("heir") });
    const peers = async (text: string) => (await sender.sendAll(topic, text)).map(({ peer }) => peer);
    await eventually("only the new one is sent to", async () => {
      return JSON.stringify(await peers("to settle")) === JSON.stringify([name("heir")]);
    });
    expect(await peers("all")).toEqual([name("heir")]);
    await heir.received.find(({ text }) => text === "all");
  });

  it("brings a reply to the old name to the new one, each time that it is handed over", async () => {
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
    await store.reassign({ from: name("asker"), to: name("asker2") });
    await heir.received.length(2);
    expect(heir.received.all).toMatchObject([{ sender: name("answerer"), text: "answer" }, { text: "answer" }]);
  });

  it("makes no break when it is undone while the sender sends", async () => {
    const { topic, sender, lost, heir } = await scene();
    await heir.stop();
    const handOver = async (from: string, to: string): Promise<void> => {
      await store.reassign({ from, to });
      await store.reassignEnqueued(from, to);
    };
    const sent: Promise<unknown>[] = [];
    const send = (from: number, to: number) => {
      for (let n = from; n <= to; n++) sent.push(sender.send(topic, `${n}`));
    };
    send(1, 100);
    await sent[0];
    await handOver(name("lost"), name("heir"));
    send(101, 200);
    await handOver(name("heir"), name("lost"));
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
});
