import { jetstreamManager } from "@nats-io/jetstream";
import { describe, expect, it } from "vitest";
import { NatsPublisher } from "../../src/bridge/nats-publisher.js";
import type { Doubt } from "../../src/outbox/doubt.js";
import type { EnqueuedMessage } from "../../src/outbox/outbox-table.js";
import type { PublishStep } from "../../src/outbox/relay.js";
import { optionsFor, testConnector } from "../nats/support/connectors.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";

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

async function publisherOf(server: TestNatsServer) {
  const { connector } = testConnector();
  connector.configure(optionsFor(server));
  const connection = await connector.connected();
  const told: string[] = [];
  return { publisher: new NatsPublisher(connector, (problem) => told.push(problem)), connection, told };
}

describe("the publisher of the outbox", () => {
  it("refuses what would write another header, or reach more than one domain", async () => {
    await using server = await startNatsServer({ jetStream: true });
    const { publisher, connection } = await publisherOf(server);
    const manager = await jetstreamManager(connection);
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

  it("tells that a domain is away, and nothing else", async () => {
    await using server = await startNatsServer({ jetStream: true });
    const { publisher, connection } = await publisherOf(server);
    await (await jetstreamManager(connection)).streams.add({ name: "ORDERS", subjects: ["orders.>"] });
    const outcomes = await Promise.all([
      publisher.publish(step({ domain: "nowhere" })),
      publisher.publish(step({})),
      publisher.publish(step({ toStream: false, destination: "core" })),
    ]);
    expect(outcomes).toEqual([
      { kind: "unavailable", scope: "route" },
      { kind: "published", as: "stored" },
      { kind: "published", as: "stored" },
    ]);
  });

  it("tells that streams are away on a server without JetStream, where core messages go on", async () => {
    await using server = await startNatsServer();
    const { publisher, told } = await publisherOf(server);
    expect(await publisher.publish(step({}))).toEqual({ kind: "unavailable", scope: "route" });
    expect(await publisher.publish(step({ toStream: false }))).toEqual({ kind: "published", as: "stored" });
    expect(told).toEqual([expect.stringContaining("has no JetStream")]);
  });

  it("blames no route where there is no connection", async () => {
    const { connector } = testConnector();
    const publisher = new NatsPublisher(connector, () => undefined);
    expect(await publisher.publish(step({}))).toEqual({ kind: "unavailable", scope: "connection" });
  });

  it("blames no route where the connection ends during a publish", async () => {
    const server = await startNatsServer({ jetStream: true });
    const { publisher, connection } = await publisherOf(server);
    await (await jetstreamManager(connection)).streams.add({ name: "ORDERS", subjects: ["orders.>"] });
    server.signal("SIGSTOP");
    const publishing = publisher.publish(step({}));
    await server[Symbol.asyncDispose]();
    expect(await publishing).toEqual({ kind: "unavailable", scope: "connection" });
  });
});
