/**
 * AbortSignal: it ends the wait of a send, not the message.
 */
import { expect, it } from "vitest";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

it("ends the wait with aborted when the signal says so; the message itself may still arrive", async () => {
  const a = await world.started("a-1");
  let release: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const b = await world.started("b-1", {}, () => held);
  const stop = new AbortController();
  const sent = a.sendTo("b", "x", { signal: stop.signal });
  await b.received.length(1);
  const reason = new Error("enough");
  stop.abort(reason);
  const error = await failure("aborted", sent);
  expect(error).toMatchObject({ cause: reason, outcome: "unknown" });
  release();
  // Its number was given: the next one comes behind it.
  expect((await a.sendTo("b", "y", { signal: new AbortController().signal })).peer).toBe("b-1");
  await b.received.length(2);
  expect(b.texts).toEqual(["x", "y"]);
});

it("keeps no listener on a signal that outlives its sends", async () => {
  const a = await world.started("a-1");
  await world.started("b-1");
  const { signal } = new AbortController();
  let listeners = 0;
  let most = 0;
  const add = signal.addEventListener.bind(signal);
  const remove = signal.removeEventListener.bind(signal);
  signal.addEventListener = (...args: Parameters<typeof add>) => {
    listeners += 1;
    most = Math.max(most, listeners);
    add(...args);
  };
  signal.removeEventListener = (...args: Parameters<typeof remove>) => {
    listeners -= 1;
    remove(...args);
  };
  await Promise.all(Array.from({ length: 50 }, (_, n) => a.sendTo("b", `${n}`, { signal })));
  expect(listeners).toBe(0);
  // Node warns of more than ten.
  expect(most).toBe(1);
});

it("rejects at once with aborted for a signal that was aborted before", async () => {
  const a = await world.started("a-1");
  await world.started("b-1");
  await failure("aborted", a.sendTo("b", "x", { signal: AbortSignal.abort() }));
  expect(await a.sendAll("b", "x", { signal: AbortSignal.abort() })).toMatchObject([{ error: { code: "aborted" } }]);
});

it("leaves the caller its buffer, wherever the message was at that moment", async () => {
  const a = await world.started("a-1", { compressThresholdBytes: 1_000_000 });
  const b = await world.started("b-1");
  // The topic is being looked up.
  const early = Buffer.from("good");
  const stop = new AbortController();
  const lookedUp = a.sendTo("b", early, { signal: stop.signal });
  stop.abort();
  await failure("aborted", lookedUp);
  early.fill("X");
  await b.received.length(1);
  // Sent all the same, to every listener.
  const toAll = Buffer.from("fine");
  await a.sendAll("b", toAll, { signal: AbortSignal.abort() });
  toAll.fill("X");
  await b.received.length(2);
  expect(b.texts).toEqual(["good", "fine"]);
  // It is being compressed, in another thread.
  const long = Buffer.alloc(8 << 20, "abcdefg");
  const hurry = new AbortController();
  const compressed = a.sendTo("b", long, { signal: hurry.signal });
  await new Promise((resolve) => setImmediate(resolve));
  hurry.abort();
  await failure("aborted", compressed);
  const expected = long.toString();
  long.fill(0);
  await b.received.length(3);
  expect(b.texts[2] === expected).toBe(true);
});
