import type { Subscription } from "../../../src/nats/bridge/bindings.js";
import type { InboundMessage } from "../../../src/nats/bridge/message.js";
import { ByteBudget, Discards, type QueueContext, type QueueSettings } from "../../../src/nats/bridge/queue/index.js";
import { maxCountedSubjects } from "../../../src/nats/bridge/subscriptions.js";

export const subscription: Subscription = {
  kind: "subscription",
  id: 1n,
  subject: "sensors.>",
  functionName: "public.capture(bytea)",
  wrapper: "capture",
  token: new Uint8Array(16),
  runAs: "app",
  takesSubject: false,
  takesHeaders: false,
};

/** Settings like those of a process, with pauses of exactly the longest time. */
const settings: QueueSettings = {
  maxBatchMessages: 1000,
  maxBatchBytes: 8 * 1024 * 1024,
  batchTargetMs: 1000,
  batchPauseMinMs: 100,
  batchPauseMaxMs: 5000,
  sessionLostCode: "session_lost",
  random: () => 1,
};

export function context(changes: Partial<QueueSettings> = {}, limitBytes = Number.MAX_SAFE_INTEGER): QueueContext {
  return {
    settings: { ...settings, ...changes },
    budget: new ByteBudget(limitBytes),
    discards: new Discards(maxCountedSubjects),
  };
}

export function message(number: number, payloadBytes = 10): InboundMessage {
  const payload = new Uint8Array(payloadBytes);
  return { id: `m${number}`, subject: "sensors.a", payload, headers: undefined, receivedAt: number };
}
