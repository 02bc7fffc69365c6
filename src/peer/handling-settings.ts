/** Settings of a handler, checked and complete. */
import type { BatchSettings, RetrySettings } from "../../generated/ts/settings/peer.js";
import type { RetryPolicy } from "../channel/index.js";
import type { MessageView } from "./message.js";

/** Handler of batches with its settings. Messages with the same object can be in one batch. */
export interface BatchHandling {
  readonly settings: BatchSettings;
  /** Makes the value that the handler gets. @throws the error of the message, which then fails alone, before the batch is handled */
  decode(message: MessageView): unknown;
  /** @param fail says that the message at an index fails, whatever becomes of the others */
  handle(
    messages: readonly MessageView[],
    values: readonly unknown[],
    fail: (index: number, error: unknown) => void,
  ): unknown;
}

/** Place of a peer among the listeners of its topics. All topics of a peer have the same. */
export interface Membership {
  /** Undefined: the peer is no member of a group. */
  readonly group: string | undefined;
  /** Undefined: the default of a group; outside of a group nothing is taken over. */
  readonly takeoverMs: number | undefined;
}

export interface HandlingSettings extends Membership {
  readonly transactional: boolean;
  readonly durable: boolean;
  /** Undefined: no limit. */
  readonly timeoutMs: number | undefined;
  readonly retry: RetryPolicy;
  /** Messages are handled together; undefined: each alone. */
  readonly batch: BatchHandling | undefined;
}

export function policyOf({ attempts, delayMs, factor, maxDelayMs, jitterPercent }: RetrySettings): RetryPolicy {
  return {
    attempts,
    delayMs: (begun) => {
      const full = Math.min(delayMs * factor ** (begun - 1), maxDelayMs);
      return full * (1 - (Math.random() * jitterPercent) / 100);
    },
  };
}
