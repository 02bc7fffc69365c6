/**
 * Rows of messages that break a rule: each costs its own message, which becomes a dead letter, and nothing else.
 */
import { describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

interface Letter {
  readonly text: string;
  readonly topic: string;
  readonly headers: unknown;
  readonly error_code: string;
  readonly error_message: string;
}

const letters = (): Promise<Letter[]> =>
  world.query(`SELECT convert_from(payload, 'UTF8') AS text, topic, headers, error_code, error_message
                 FROM hawser_data.dead_letters ORDER BY id`);

/** A listener `b-1` that has stopped, and its channel and topic. */
async function away(
  options: Parameters<typeof world.started>[1],
): Promise<[b: TestPeer, channel: number, topic: number]> {
  const a = await world.started("a-1");
  const b = await world.started("b-1", options);
  await a.send("b", "before");
  await a.stop();
  await b.stop();
  const [row] = await world.query<{ channel_id: number; id: number }>(
    `SELECT m.channel_id, t.id FROM hawser_peer_data.channels AS m, hawser_peer_data.topics AS t
      WHERE m.channel_name = 'a-1:a:b-1' AND t.topic = 'b'`,
  );
  return [b, row!.channel_id, row!.id];
}

/** Stores a row behind all that a sender could have sent until now. */
async function store(channel: number, topic: number, number: number, row: object): Promise<void> {
  const columns = { channel_id: channel, topic_id: topic, epoch: 9_000_000_000_000, number, ...row };
  await world.query(
    `INSERT INTO hawser_peer_data.stored_messages (${Object.keys(columns).join()})
     VALUES (${Object.keys(columns).map((_, at) => `$${at + 1}`)})`,
    Object.values(columns),
  );
}

describe.each([{ transactional: false }, { transactional: true }])(
  "a peer that finds malformed rows (transactional: $transactional)",
  ({ transactional }) => {
    it("starts, handles all other messages in order, and makes dead letters of these", async () => {
      const [b, channel, topic] = await away({ transactional });
      const bytes = (text: string) => Buffer.from(text);
      await store(channel, topic, 1, { payload: bytes("bad 1"), headers: '[["a"]]' });
      await store(channel, topic, 2, { payload: bytes("good 2") });
      await store(channel, topic, 4, {
        ...{ messages: 2, lengths: [5, 6], payload: bytes("bad 3good 4") },
        headers: '[{"a": "b"}, [["trace", "7"]]]',
      });
      await store(channel, topic, 6, { messages: 2, lengths: [1, 1], payload: bytes("bad 5") });
      await store(channel, topic, 7, { codec: 1, payload: bytes("bad 7"), headers: '[["k", "v"], [1, 2]]' });
      await store(channel, topic, 8, { payload: bytes("good 8"), headers: "null" });
      await b.start();
      await b.received.find(({ text }) => text === "good 8");
      expect(b.texts).toEqual(["before", "good 2", "good 4", "good 8"]);
      await eventually("the bad ones are dead letters", async () => (await letters()).length === 5);
      const dead = await letters();
      const headers = (number: number) => [
        ["message-origin", "a-1:a:"],
        ["message-id", `a-1:a:b-1/9000000000000/${number}`],
      ];
      expect(dead.map(({ text, headers }) => [text, headers])).toEqual([
        ["bad 1", headers(1)],
        ["bad 3", headers(3)],
        ["bad 5", headers(5)],
        ["", headers(6)],
        ["bad 7", [...headers(7).slice(0, 1), ["k", "v"], ...headers(7).slice(1)]],
      ]);
      for (const { topic: of, error_code, error_message } of dead) {
        expect([of, error_code]).toEqual(["b", "invalid_message"]);
        expect(error_message).toMatch(/^its row in the database breaks a rule: \S+ is .+; it must .+\. .+\.$/);
      }
      await b.saw("dead_letter", ({ code, stored }) => code === "invalid_message" && stored);
      await eventually("nothing is left of them", async () => (await world.storedMessages()) === 0);
      expect(b.statuses.all.filter(({ kind }) => kind === "listener_store_error")).toEqual([]);
    });
  },
);

it.each(["nonsense", "127.0.0.1:65536"])(
  "a listener at %j in the directory costs what is sent to it alone, and a status names it",
  async (addr) => {
    const [a, b] = await world.running("a-1", "b-1");
    await world.list("b", "b-2", { addr });
    await a.listenersOf("b", { refresh: true });
    const { message } = await a.saw("sender_send_error", ({ peer }) => peer === "b-2");
    expect(message).toContain(`${JSON.stringify(addr)} is not an address; write host:port`);
    await a.send("b", "one");
    await a.send("b", "two");
    expect(b.texts).toEqual(["one", "two"]);
  },
);

it.each(["\u00ad", "%"])("a listener at the host %j costs what is sent to it alone", async (host) => {
  const [a, b] = await world.running("a-1", "b-1");
  await world.list("b", "b-2", { addr: `${host}:1` });
  await a.listenersOf("b", { refresh: true });
  for (let n = 1; n <= 4; n++) expect((await a.send("b", `${n}`)).outcome).toMatch(/delivered|stored/);
  await b.received.length(1);
});
