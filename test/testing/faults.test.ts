import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { describe, expect, it, onTestFinished } from "vitest";
import { twice } from "../../src/development/testing/index.js";
import { type Message, Peer, type TransactionalMessage } from "../../src/jobs-and-peers/peer/index.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";

const waiting = "SELECT FROM hawser_data.queue";

/** A sender, and a listener of the topic `b` with the handler. */
async function peersWith(handler: (message: TransactionalMessage) => unknown, transactional = false) {
  const database = await testDatabase();
  const options = { databaseUrl: database.url, defaults: { retry: { delayMs: 1 } } };
  const listener = new Peer({ ...options, name: "b-1", topic: "b" });
  const sender = new Peer({ ...options, name: "a-1", topic: "a" });
  onTestFinished(async () => {
    await sender.stop();
    await listener.stop();
    await database.drop();
  });
  await listener.handle("b", { transactional }, (message) => handler(message as TransactionalMessage));
  await listener.start();
  await sender.start();
  return { sender, database };
}

describe("twice, for a peer", () => {
  it("has each message come twice, one after the other, and be done then", async () => {
    const seen: string[] = [];
    const handler = ({ payload, attempt }: Message) => void seen.push(`${Buffer.from(payload)}, ${attempt}`);
    const { sender, database } = await peersWith(twice(handler));
    for (const text of ["one", "two"]) await sender.send("b", text);
    await eventually("each has come twice", () => seen.length === 4);
    await eventually("nothing waits", async () => (await rowsOf(database.url, waiting)).length === 0);
    expect(seen).toEqual(["one, 1", "one, 2", "two, 1", "two, 2"]);
    expect(await rowsOf(database.url, "SELECT FROM hawser_data.dead_letters")).toEqual([]);
  });

  it("leaves one effect of a transactional handler", async () => {
    let calls = 0;
    const handler = async ({ client }: TransactionalMessage): Promise<void> => {
      calls++;
      await client.query("INSERT INTO effects VALUES ($1)", [calls]);
    };
    const { sender, database } = await peersWith(twice(handler), true);
    await onServer(database.url, "CREATE TABLE effects (number int)");
    await sender.send("b", "one");
    await eventually("nothing waits", async () => (await rowsOf(database.url, waiting)).length === 0);
    expect(await rowsOf(database.url, "SELECT number FROM effects")).toEqual([{ number: 2 }]);
  });

  it("leaves a message that comes at most once as it is", async () => {
    const seen: number[] = [];
    let onSeen: () => void = () => undefined;
    const last = new Promise<void>((resolve) => (onSeen = resolve));
    const { sender } = await peersWith(
      twice(({ payload, attempt }: Message) => {
        seen.push(attempt);
        if (payload[0] === 2) onSeen();
      }),
    );
    for (const byte of [1, 2]) await sender.send("b", new Uint8Array([byte]), { delivery: "at-most-once" });
    await last;
    expect(seen).toEqual([1, 1]);
  });
});

it("twice passes on what the handler throws and returns", async () => {
  const failing = twice(async () => Promise.reject(new Error("mine")));
  await expect(failing()).rejects.toThrow("mine");
  const answering = twice((text: string, _message: { readonly attempt: number }) => text);
  await expect(answering("a", { attempt: 1 })).rejects.toThrow("is delivered a second time");
  expect(await answering("a", { attempt: 2 })).toBe("a");
});

it("twice lets a typed message of JetStream, which Hawser acknowledges, fail once", async () => {
  const message = (deliveryCount: number) => ({ info: { deliveryCount }, ack: () => undefined, nak: () => undefined });
  const handler = twice((value: string, _message: unknown) => value);
  await expect(handler("a", message(1))).rejects.toThrow("is delivered a second time");
  expect(await handler("a", message(2))).toBe("a");
});

describe("twice, for JetStream", () => {
  it.each(["ack", "ackAck"] as const)("loses the first %s()", async (acknowledge) => {
    const nats = await connect({ servers: testNatsUrl() });
    onTestFinished(() => nats.close());
    const name = `twice-${acknowledge}-${process.pid}`;
    const manager = await jetstreamManager(nats);
    await manager.streams.add({ name, subjects: [name] });
    onTestFinished(async () => void (await manager.streams.delete(name)));
    await manager.consumers.add(name, { durable_name: "c", ack_policy: "explicit" });
    const js = jetstream(nats);
    await js.publish(name, "one");
    const deliveries: number[] = [];
    const handler = twice(async (message: JsMessage) => {
      deliveries.push(message.info.deliveryCount);
      expect(message.string()).toBe("one");
      await message[acknowledge]();
    });
    const consumer = await js.consumers.get(name, "c");
    for (let count = 0; count < 2; count++) await handler((await consumer.next())!);
    await nats.flush();
    expect(deliveries).toEqual([1, 2]);
    expect(await manager.consumers.info(name, "c")).toMatchObject({ num_ack_pending: 0, num_pending: 0 });
  });
});

type JsMessage = NonNullable<
  Awaited<ReturnType<Awaited<ReturnType<ReturnType<typeof jetstream>["consumers"]["get"]>>["next"]>>
>;
