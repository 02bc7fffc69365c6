/**
 * The program of the process that publishes, and of the one that handles.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Arrived, type Delivery, Tally } from "../live/ways.js";
import { newPeer, sendUntilDelivered, settleInWindows, usualWindows } from "../peers.js";
import { BenchFailure } from "../suite.js";
import { serveRequests, systemMs } from "../worker.js";
import { orderOf, orderSchema } from "./schema.js";

/** Ways to send a message, and ways to handle one. */
export type TypedWay = "typed send" | "protobuf-es, then send" | "raw" | "typed handler" | "protobuf-es in the handler";

/** Topics by what handles them. */
const topics = { raw: "bench-raw", typed: "bench-typed", byHand: "bench-by-hand" } as const;
const topicOfWay: Readonly<Record<TypedWay, string>> = {
  "typed send": topics.raw,
  "protobuf-es, then send": topics.raw,
  raw: topics.raw,
  "typed handler": topics.typed,
  "protobuf-es in the handler": topics.byHand,
};

/** Different messages, made before anything is measured. */
const differentOrders = 1024;

/** Each is compiled once, as in a program. */
const schemas = new Map<string, ReturnType<typeof orderSchema>>();
const schemaOf = (topic: string) => {
  const schema = schemas.get(topic) ?? orderSchema(topic);
  schemas.set(topic, schema);
  return schema;
};

const tally = new Tally();
let peer: ReturnType<typeof newPeer>;

const requests = {
  async handle({ databaseUrl }: { databaseUrl: string }): Promise<void> {
    peer = newPeer("bench-handling", databaseUrl);
    const schema = orderSchema(topics.typed);
    await peer.handle(topics.raw, (message) => tally.count(message.payload.length));
    await peer.handle(topics.byHand, (message) => {
      const order = fromBinary(schema, message.payload);
      if (order.$typeName !== schema.typeName) throw new BenchFailure("another message has come");
      tally.count(message.payload.length);
    });
    await peer.handle(schema, (order, message) => {
      if (order.$typeName !== schema.typeName) throw new BenchFailure("another message has come");
      tally.count(message.payload.length);
    });
    await peer.start();
  },
  async connect({ databaseUrl }: { databaseUrl: string }): Promise<void> {
    peer = newPeer("bench-publishing", databaseUrl);
    await peer.start();
    await sendUntilDelivered(peer, topics.raw);
    const schema = orderSchema(topics.typed);
    // With a payload that each of the handlers can read.
    for (const topic of [topics.typed, topics.byHand]) {
      await sendUntilDelivered(peer, topic, toBinary(schema, create(schema, orderOf(0))));
    }
  },
  expect: (messages: number): void => tally.expect(messages),
  arrived: (timeoutMs: number): Promise<Arrived> => tally.arrived(timeoutMs),
  /** Sends so many messages. */
  async send({ way, delivery, messages }: { way: TypedWay; delivery: Delivery; messages: number }): Promise<Sent> {
    const topic = topicOfWay[way];
    const schema = schemaOf(topic);
    const orders = Array.from({ length: differentOrders }, (_, number) => orderOf(number));
    const payloads = orders.map((order) => toBinary(schema, create(schema, order)));
    const headers = [["content-type", `application/x-protobuf; type=${schema.typeName}`]] as const;
    const options = { delivery, headers };
    let sent = 0;
    const sends = {
      "typed send": () => peer.send(schema, orders[sent++ % differentOrders]!, { delivery }),
      "protobuf-es, then send": () =>
        peer.send(topic, toBinary(schema, create(schema, orders[sent++ % differentOrders]!)), options),
      raw: () => peer.send(topic, payloads[sent++ % differentOrders]!, options),
    };
    const beganMs = systemMs();
    const send = way === "typed send" || way === "protobuf-es, then send" ? sends[way] : sends.raw;
    await settleInWindows(send, messages, usualWindows[delivery]);
    return { beganMs, doneMs: systemMs() };
  },
};

/** Times of the first send and of the last settled promise, on the system's clock. */
export interface Sent {
  readonly beganMs: number;
  readonly doneMs: number;
}

/** Requests that both processes answer. */
export type TypedRequests = typeof requests;

serveRequests(requests, async () => {
  await peer?.stop();
});
