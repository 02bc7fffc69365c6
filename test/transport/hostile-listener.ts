/**
 * A listener in a process of its own, whose memory can be measured; its clock stands until it is told to move.
 * Started by hostile.test.ts with --expose-gc; ends when its parent goes.
 */
import type { HandshakeRefusal } from "../../src/jobs-and-peers/transport/index.js";
import { ManualClock } from "../support/manual-clock.js";
import { TestListener } from "./pair.js";

/** Command of the parent process. */
export type HostileCommand = { readonly kind: "advance"; readonly ms: number } | { readonly kind: "report" };

/** Answer to `report`, and announcement when it listens. */
export interface HostileReport {
  readonly address: string;
  /** Memory in use after a collection: heap and what lies outside it. */
  readonly bytes: number;
  readonly refusals: readonly HandshakeRefusal[];
}

const collect = (globalThis as { gc?: () => void }).gc;
if (collect === undefined || process.send === undefined) throw new Error("start me from hostile.test.ts");

const clock = new ManualClock();
const listener = await TestListener.start({
  clock,
  onConnection: (connection) => ({
    onBatch: ({ epoch, firstNumber: number }) =>
      connection.writeAck({ epoch, number, credit: 1, backlog: 0, busy: false, live: true, queued: 0 }),
    onGoLive() {},
    onRequest() {},
    onCancel() {},
    onDrain() {},
    onGoodbye() {},
    onClosed() {},
  }),
});

function report(): void {
  collect?.();
  const { heapUsed, external } = process.memoryUsage();
  process.send?.({ address: listener.address, bytes: heapUsed + external, refusals: listener.refusals.all });
}

process.on("message", (command: HostileCommand) => {
  if (command.kind === "advance") clock.advance(command.ms);
  else report();
});
process.on("disconnect", () => process.exit(0));
report();
