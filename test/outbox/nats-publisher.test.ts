import {
  AckPolicy,
  DiscardPolicy,
  type JetStreamManager,
  jetstream,
  jetstreamManager,
  RetentionPolicy,
  type StreamConfig,
} from "@nats-io/jetstream";
import { nanos, nuid } from "@nats-io/transport-node";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Doubt } from "../../src/nats/outbox/doubt.js";
import { NatsPublisher } from "../../src/nats/outbox/nats-publisher.js";
import type { EnqueuedMessage } from "../../src/nats/outbox/outbox-table.js";
import type { PublishStep } from "../../src/nats/outbox/relay.js";
import { optionsFor, testConnector } from "../nats/support/connectors.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { slowIt } from "../support/slow-it.js";

let ids = 0n;

function step(given: Partial<EnqueuedMessage>, doubt?: Doubt): PublishStep<EnqueuedMessage> {
  ids += 1n;
  const destination = given.destination ?? "orders.new";
  const known = { id: ids, role: "shop", route: destination, lane: undefined, bytes: 2, copyOf: undefined };
  const now = performance.now();
  const message: EnqueuedMessage = {
    ...known,
    refusal: undefined,
    destination,
    payload: Buffer.from("hi"),
    headers: null,
    messageId: `m${ids}`,
    toStream: true,
    domain: undefined,
    enqueuedAt: new Date(),
    enqueuedBy: now,
    mayBeThereSince: now,
    isRepeated: false,
    ...given,
  };
  return { kind: "publish", message, doubt, at: now };
}

async function publisherOf(server: TestNatsServer, options: Readonly<Record<string, string>> = {}) {
  const { connector } = testConnector();
  connector.configure(optionsFor(server, options));
  const connection = await connector.connected();
  const told: string[] = [];
  return { publisher: new NatsPublisher(connector, (problem) => told.push(problem)), connection, told };
}

describe("the publisher of the outbox", () => {
  let server: TestNatsServer;
  let shared: Awaited<ReturnType<typeof publisherOf>>;
  let manager: JetStreamManager;
  beforeAll(async () => {
    server = await startNatsServer({ jetStream: true });
  });
  beforeEach(async () => {
    shared = await publisherOf(server);
    manager = await jetstreamManager(shared.connection);
    for (const { config } of await manager.streams.list().next()) await manager.streams.delete(config.name);
  });
  afterAll(() => server?.[Symbol.asyncDispose]());

  it("refuses what would write another header, or reach more than one domain", async () => {
    const { publisher } = shared;
    await manager.streams.add({ name: "ORDERS", subjects: ["orders.>"] });
    for (const given of [
      { messageId: "m\r\nInjected: 1" },
      { messageId: "m\nInjected: 1", headers: { A: "1" } },
      { messageId: "m\r\nInjected: 1", domain: "hub" },
      { headers: { A: "1\r\nInjected: 1" } },
      { domain: "*" },
      { domain: "hub.>" },
      { domain: "" },
    ]) {
      const outcome = await publisher.publish(step(given));
      expect(outcome, JSON.stringify(given)).toMatchObject({ kind: "refused", code: "invalid_argument" });
    }
    expect((await manager.streams.info("ORDERS")).state.messages).toBe(0);
    expect(await publisher.publish(step({ headers: { A: "1" } }))).toEqual({ kind: "published", as: "stored" });
  });

  it("reports that a domain is unavailable, and nothing else", async () => {
    const { publisher } = shared;
    await manager.streams.add({ name: "ORDERS", subjects: ["orders.>"] });
    const outcomes = await Promise.all([
      publisher.publish(step({ domain: "nowhere" })),
      publisher.publish(step({})),
      publisher.publish(step({ toStream: false, destination: "core" })),
    ]);
    expect(outcomes).toEqual([
      { kind: "unavailable", scope: "route", mayBeThere: false },
      { kind: "published", as: "stored" },
      { kind: "published", as: "stored" },
    ]);
  });

  it("reports that streams are unavailable on a server without JetStream, where core messages go on", async () => {
    await using server = await startNatsServer();
    const { publisher, told } = await publisherOf(server);
    expect(await publisher.publish(step({}))).toEqual({ kind: "unavailable", scope: "route", mayBeThere: false });
    expect(await publisher.publish(step({ toStream: false }))).toEqual({ kind: "published", as: "stored" });
    expect(told).toEqual([expect.stringContaining("has no JetStream")]);
  });

  it("blames no route if there is no connection", async () => {
    const { connector } = testConnector();
    const publisher = new NatsPublisher(connector, () => undefined);
    expect(await publisher.publish(step({}))).toEqual({ kind: "unavailable", scope: "connection", mayBeThere: false });
  });

  it("blames no route if the connection ends during a publish", async () => {
    const server = await startNatsServer({ jetStream: true });
    const { publisher, connection } = await publisherOf(server);
    await (await jetstreamManager(connection)).streams.add({ name: "ORDERS", subjects: ["orders.>"] });
    server.signal("SIGSTOP");
    const publishing = publisher.publish(step({}));
    await server[Symbol.asyncDispose]();
    expect(await publishing).toEqual({ kind: "unavailable", scope: "connection", mayBeThere: true });
  });

  describe("of a message that may be in its stream", () => {
    /** Which knows no ids of messages that it has had for long. */
    async function stream(given: Partial<StreamConfig> = {}) {
      const name = nuid.next();
      await manager.streams.add({ name, subjects: [`${name}.>`], duplicate_window: nanos(100), ...given });
      return {
        name,
        subject: `${name}.new`,
        stored: async () => (await manager.streams.info(name)).state.messages,
        /** Consumes everything. */
        async consume(): Promise<void> {
          await manager.consumers.add(name, { durable_name: "worker", ack_policy: AckPolicy.Explicit });
          const consumer = await jetstream(shared.connection).consumers.get(name, "worker");
          for (let left = (await consumer.info()).num_pending; left > 0; left--)
            await (await consumer.next())?.ackAck();
        },
      };
    }

    /** A message of a minute ago, of which the relay before may have published this. */
    function doubtful(destination: string, given: Partial<EnqueuedMessage> = {}) {
      const now = performance.now();
      const long = { enqueuedBy: now - 60_000, mayBeThereSince: now - 60_000 };
      return step({ destination, ...long, ...given }, { from: Number.NEGATIVE_INFINITY, until: now - 1 });
    }

    const known = { kind: "published", as: "known" };
    const undecided = { kind: "undecided", code: "outcome_unknown" };
    const kinds: readonly (readonly [string, Partial<StreamConfig>])[] = [
      ["keeps its messages", {}],
      ["stores them with other subjects", { subject_transform: { src: ">", dest: "stored.>" } }],
      ["has all the consumers that it may have", { max_consumers: 1 }],
      ["is a work queue", { retention: RetentionPolicy.Workqueue }],
      ["keeps what somebody is interested in", { retention: RetentionPolicy.Interest }],
    ];

    it.each(kinds)("finds it in a stream that %s", async (_, config) => {
      const { name, subject, stored } = await stream(config);
      await manager.consumers.add(name, { durable_name: "worker", ack_policy: AckPolicy.Explicit });
      const messages = [1, 2, 3].map(() => doubtful(subject));
      for (const { message } of messages) {
        await jetstream(shared.connection).publish(subject, "hi", { msgID: message.messageId });
      }
      expect(await Promise.all(messages.map((each) => shared.publisher.publish(each)))).toEqual([known, known, known]);
      expect(await stored()).toBe(3);
      // Of what is not there: a stream of that name that removes messages may have been there before.
      const absent = config.retention === undefined ? { kind: "published", as: "stored" } : undecided;
      expect(await shared.publisher.publish(doubtful(subject))).toMatchObject(absent);
    });

    it.each(kinds.slice(3))("does not publish what may have been consumed, where it %s", async (_, config) => {
      const { subject, stored, consume } = await stream(config);
      const doubt = doubtful(subject);
      await jetstream(shared.connection).publish(subject, "hi", { msgID: doubt.message.messageId });
      await consume();
      expect(await shared.publisher.publish(doubt)).toMatchObject(undecided);
      // Nor again, for whoever wants it again.
      const copy = step({ ...doubt.message, copyOf: 1n, isRepeated: true });
      expect(await shared.publisher.publish(copy)).toMatchObject(undecided);
      expect(await stored()).toBe(0);
    });

    it("does not publish what a stream may have removed, unless somebody wants it there again", async () => {
      const { name, subject, stored } = await stream();
      const doubts = [doubtful(subject), doubtful(subject)] as const;
      for (const { message } of [doubtful(subject), ...doubts, doubtful(subject)]) {
        await jetstream(shared.connection).publish(subject, "hi", { msgID: message.messageId });
      }
      await manager.streams.deleteMessage(name, 2);
      expect(await shared.publisher.publish(doubts[0])).toMatchObject(undecided);
      expect(await shared.publisher.publish(doubts[1])).toEqual(known);
      await manager.streams.purge(name);
      const now = performance.now();
      // Another look: behind the purge.
      const later = step(doubts[1].message, { from: Number.NEGATIVE_INFINITY, until: now });
      expect(await shared.publisher.publish(later)).toMatchObject(undecided);
      const lost = { ...doubtful(subject).message, copyOf: 1n, isRepeated: true, enqueuedBy: performance.now() };
      expect(await shared.publisher.publish(step(lost))).toEqual({ kind: "published", as: "stored" });
      expect(await stored()).toBe(1);
    });

    it("does not leave it to a work queue to drop what it has consumed, when its server may have started since", async () => {
      const { subject, consume } = await stream({
        retention: RetentionPolicy.Workqueue,
        duplicate_window: nanos(120_000_000_000),
      });
      const { message } = step({ destination: subject });
      const now = performance.now();
      await jetstream(shared.connection).publish(subject, "hi", { msgID: message.messageId });
      await consume();
      // By the relay before: which server that had published to is not known.
      const { NEGATIVE_INFINITY } = Number;
      const taken = step({ ...message, mayBeThereSince: now - 1_000 }, { from: NEGATIVE_INFINITY, until: now });
      expect(await shared.publisher.publish(taken)).toMatchObject(undecided);
    });

    it("is in doubt if the stream was removed, and another one made", async () => {
      const { name, subject } = await stream({ retention: RetentionPolicy.Workqueue });
      await jetstream(shared.connection).publish(subject, "hi");
      await manager.streams.delete(name);
      await manager.streams.add({ name, subjects: [`${name}.>`], retention: RetentionPolicy.Workqueue });
      expect(await shared.publisher.publish(doubtful(subject))).toMatchObject(undecided);
    });

    it("is not published if no stream shows itself, and one may be there", async () => {
      const outcome = await shared.publisher.publish(doubtful(nuid.next()));
      expect(outcome).toMatchObject({ kind: "missing", code: "no_stream", mayBeThere: false });
    });

    slowIt("reads a stream without a consumer that gives nothing", async () => {
      const permissions = '{ publish: { deny: ["$JS.API.CONSUMER.MSG.NEXT.>"] } }';
      const config = `authorization { users: [{ user: u, password: p, permissions: ${permissions} }, { user: a, password: p }] }`;
      await using strict = await startNatsServer({ jetStream: true, config });
      const admin = await publisherOf(strict, { username: "a", password: "p" });
      await (await jetstreamManager(admin.connection)).streams.add({ name: "S", subjects: ["s"] });
      const doubt = doubtful("s");
      await jetstream(admin.connection).publish("s", "hi", { msgID: doubt.message.messageId });
      const { publisher } = await publisherOf(strict, { username: "u", password: "p" });
      expect(await publisher.publish(doubt)).toEqual(known);
    });

    it("reports a message that a stream drops, which has none of it", async () => {
      const { name, subject } = await stream({ duplicate_window: nanos(60_000) });
      const first = step({ destination: subject });
      expect(await shared.publisher.publish(first)).toEqual({ kind: "published", as: "stored" });
      const other = step({ destination: subject, messageId: first.message.messageId });
      expect(await shared.publisher.publish(other)).toEqual({ kind: "published", as: "dropped" });
      // It was published before, and the stream knows it: as it should be.
      const now = performance.now();
      const again = step(first.message, { from: now, until: now });
      expect(await shared.publisher.publish(again)).toEqual(known);
      await manager.streams.purge(name);
      const copy = step({ ...first.message, copyOf: 1n, isRepeated: true, enqueuedBy: performance.now() });
      expect(await shared.publisher.publish(copy)).toEqual({ kind: "published", as: "dropped" });
    });

    it("searches again, from the time at which it has taken over", async () => {
      const { subject, stored } = await stream();
      const doubt = doubtful(subject);
      expect(await shared.publisher.publish(doubtful(subject))).toEqual({ kind: "published", as: "stored" });
      await jetstream(shared.connection).publish(subject, "hi", { msgID: doubt.message.messageId });
      const until = performance.now();
      const taken = step(doubt.message, { from: Number.NEGATIVE_INFINITY, until });
      expect(await shared.publisher.publish(taken)).toEqual(known);
      expect(await stored()).toBe(2);
    });

    it("does not publish a message that it may not search for", async () => {
      const permissions = '{ publish: { deny: ["$JS.API.STREAM.NAMES"] } }';
      const config = `authorization { users: [{ user: u, password: p, permissions: ${permissions} }, { user: a, password: p }] }`;
      await using strict = await startNatsServer({ jetStream: true, config });
      const admin = await publisherOf(strict, { username: "a", password: "p" });
      const known = await jetstreamManager(admin.connection);
      await known.streams.add({ name: "S", subjects: ["s"] });
      const { publisher } = await publisherOf(strict, { username: "u", password: "p" });
      expect(await publisher.publish(step({ destination: "s" }))).toEqual({ kind: "published", as: "stored" });
      expect(await publisher.publish(doubtful("s"))).toMatchObject({
        ...undecided,
        message: expect.stringContaining("the search for it failed"),
      });
      expect((await known.streams.info("S")).state.messages).toBe(1);
    });

    it("waits for a stream that is full", async () => {
      const { subject } = await stream({ max_msgs: 1, discard: DiscardPolicy.New });
      expect(await shared.publisher.publish(step({ destination: subject }))).toEqual({
        kind: "published",
        as: "stored",
      });
      const outcome = await shared.publisher.publish(step({ destination: subject }));
      expect(outcome).toEqual({ kind: "unavailable", scope: "route", mayBeThere: false });
    });

    it("reports that there is no stream", async () => {
      const outcome = await shared.publisher.publish(step({ destination: nuid.next() }));
      expect(outcome).toMatchObject({ kind: "missing", code: "no_stream" });
    });
  });
});
