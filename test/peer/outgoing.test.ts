import { expect, it } from "vitest";
import { batchOf, Outgoing } from "../../src/peer/outgoing.js";

it("a Buffer that is lent to the connection is copied, and so is one that the caller takes back", () => {
  const buffer = Buffer.alloc(512 * 1024, 1);
  const message = new Outgoing("at-least-once", { topic: "t", topicKey: 1 }, buffer, undefined);
  const batch = batchOf(1, "at-least-once", 1, 1, [message]);
  message.keep();
  buffer.fill(2);
  expect([batch.payloads[0]?.[0], message.payload[0]]).toEqual([1, 1]);
});
