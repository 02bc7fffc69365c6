/**
 * The limit of a message is that of its bytes as they are given, whatever compression makes of them.
 */
import { expect, it } from "vitest";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

it("is that of the uncompressed payload, sent and stored", async () => {
  const maxMessageBytes = 100_000;
  const a = await world.started("a-1", { compressThresholdBytes: 10 });
  const b = await world.started("b-1", { maxMessageBytes });
  // It would travel as a few hundred bytes.
  const fits = Buffer.alloc(maxMessageBytes, "x");
  const tooLong = Buffer.alloc(maxMessageBytes + 1, "x");
  const error = await failure("invalid_argument", a.sendTo("b", tooLong));
  expect(error.message).toMatch(/100001 bytes.*100000/);
  expect((await a.sendTo("b", fits)).outcome).toMatch(/delivered|stored/);
  await b.received.length(1);
  await b.stop();
  await failure("invalid_argument", a.sendTo("b", tooLong));
  expect((await a.sendTo("b", fits)).outcome).toBe("stored");
  await b.record();
  await b.received.length(2);
  expect(b.texts.map((text) => text.length)).toEqual([maxMessageBytes, maxMessageBytes]);
});
