/** What the simulator cannot see of the state machine of the relay. */
import { expect, it } from "vitest";
import { type OutboxMessage, type OutboxPosition, OutboxRelay, type TurnStep } from "../../src/outbox/relay.js";
import { relaySettings } from "../simulator/outbox/relay-process.js";

const message = (id: bigint): OutboxMessage => {
  return { id, lane: undefined, destination: "orders", bytes: 1, copyOf: undefined };
};

/** A relay that has taken over within a set, and has read the rest of it. */
function relayWithin(position: OutboxPosition, rest: readonly OutboxMessage[]) {
  const relay = new OutboxRelay(position, 5n, 0, relaySettings);
  /** The next turn finds this. */
  const read = (to: string, messages: readonly OutboxMessage[], hasMore = false): void => {
    const turn = relay.next(0) as TurnStep<OutboxMessage>;
    expect(turn.kind).toBe("turn");
    relay.settleTurn(turn, { kind: "done", isSaved: messages.length > 0, found: { to, messages, hasMore } }, 0, 0);
  };
  read(position.to!, rest);
  return { relay, read };
}

const position: OutboxPosition = { from: "100:100:", to: "110:110:", after: 70n, skipped: [71n, 120n] };

it("a relay skips dead letters of the relay before, also those that come with its first look", () => {
  const { relay, read } = relayWithin(position, [message(71n), message(80n)]);
  expect(relay.waiting).toBe(1);
  expect(relay.position).toEqual({ ...position, after: 79n, skipped: [120n] });
  read("130:130:", [message(120n), message(121n)]);
  expect(relay.waiting).toBe(2);
  expect(relay.position).toEqual({ ...position, after: 79n, skipped: [120n] });
});

it("dead letters that were truncated before the relay has read them are not skipped for ever", () => {
  const { relay, read } = relayWithin(position, []);
  expect(relay.position).toEqual({ from: "110:110:", to: undefined, after: 0n, skipped: [71n, 120n] });
  read("130:130:", [message(118n)], true);
  expect(relay.position.skipped).toEqual([71n, 120n]);
  read("130:130:", [message(120n)]);
  expect(relay.position).toEqual({ from: "110:110:", to: "130:130:", after: 117n, skipped: [120n] });
});

it("a first look that finds nothing ends the skipping, too", () => {
  const { relay, read } = relayWithin(position, []);
  read("130:130:", []);
  expect(relay.position).toEqual({ from: "130:130:", to: undefined, after: 0n, skipped: [] });
});
