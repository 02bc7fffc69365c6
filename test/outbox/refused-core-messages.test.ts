/**
 * Messages to core NATS that the server refuses: none may count as published, in whatever pieces and over whichever
 * connection the refusals come.
 */
import type { Socket } from "node:net";
import { expect, it } from "vitest";
import { NatsPublisher } from "../../src/nats/outbox/nats-publisher.js";
import type { EnqueuedMessage } from "../../src/nats/outbox/outbox-table.js";
import type { PublishStep } from "../../src/nats/outbox/relay.js";
import { optionsFor, testConnector } from "../nats/support/connectors.js";
import { fakeServer, greeting } from "../nats/support/fake-server.js";
import { eventually } from "../support/eventually.js";

let ids = 0n;

function step(destination: string): PublishStep<EnqueuedMessage> {
  ids += 1n;
  const now = performance.now();
  const message: EnqueuedMessage = {
    id: ids,
    role: "shop",
    route: destination,
    lane: undefined,
    bytes: 2,
    copyOf: undefined,
    refusal: undefined,
    destination,
    payload: Buffer.from("hi"),
    headers: null,
    messageId: `m${ids}`,
    toStream: false,
    domain: undefined,
    enqueuedAt: new Date(),
    enqueuedBy: now,
    mayBeThereSince: now,
    isRepeated: false,
  };
  return { kind: "publish", message, doubt: undefined, at: now };
}

/** Greets, and refuses every publish, together with its answer to the next PING. @param may when it answers one */
function refusing(socket: Socket, may: () => Promise<void> = () => Promise.resolve()): void {
  socket.write(greeting());
  let refusals = "";
  let isConnected = false;
  socket.on("data", (chunk) => {
    for (const [command, subject] of chunk.toString("latin1").matchAll(/^(?:H?PUB (\S+)|PING)/gm)) {
      if (subject !== undefined) refusals += `-ERR 'Permissions Violation for Publish to "${subject}"'\r\n`;
      if (command !== "PING") continue;
      const answer = `${refusals}PONG\r\n`;
      refusals = "";
      if (isConnected) void may().then(() => socket.write(answer));
      else socket.write(answer);
      isConnected = true;
    }
  });
}

const refused = expect.objectContaining({ kind: "refused", code: "nats_permission_denied" });

it("each of many is refused, although all refusals come in one piece with the answer to the flush", async () => {
  const server = await fakeServer((socket) => refusing(socket));
  const { connector } = testConnector();
  connector.configure(optionsFor(server));
  await connector.connected();
  const publisher = new NatsPublisher(connector, () => undefined);
  const subjects = Array.from({ length: 20 }, (_, index) => `closed.${index}`);
  const outcomes = await Promise.all(subjects.map((subject) => publisher.publish(step(subject))));
  expect(outcomes).toEqual(subjects.map(() => refused));
});

it("one is refused over a replaced connection, after another has been published over the new one", async () => {
  let answer = (): void => undefined;
  const answers = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const server = await fakeServer((socket) => refusing(socket, server.sockets.length > 1 ? undefined : () => answers));
  const { connector } = testConnector();
  connector.configure(optionsFor(server));
  await connector.connected();
  const publisher = new NatsPublisher(connector, () => undefined);
  const before = publisher.publish(step("closed.before"));
  await eventually("it is sent", () => server.received().includes("PUB closed.before"));
  await connector.reconnect();
  expect(await publisher.publish(step("closed.after"))).toEqual(refused);
  answer();
  expect(await before).toEqual(refused);
});
