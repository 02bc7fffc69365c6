/** Validated settings of a handler, with defaults filled in. */
import type { BatchSettings, RetrySettings } from "../../../generated/ts/settings/peer.js";
import type { RetryPolicy } from "../channel/index.js";
import type { ConcurrencyLimit } from "./limits/concurrency-limit.js";
import type { MessageView } from "./message.js";

/**
 * Settings and functions of a batch handler. Messages can share a batch if they have the same `BatchHandling` object.
 */
export interface BatchHandling {
  readonly settings: BatchSettings;
  /**
   * @param values decoded messages, for a handler of one type
   * @param fail marks the message at an index as failed, independently of the other messages
   */
  handle(
    messages: readonly MessageView[],
    values: readonly unknown[],
    fail: (index: number, error: unknown) => void,
  ): unknown;
}

/** Time after which others take over the channels of an absent member of a group, and the enqueued messages of any peer. */
export const defaultTakeoverMs = 15_000;

/** Role of a peer among the listeners of its topics. It is the same for all topics of a peer. */
export interface Membership {
  /** Undefined if the peer is not a member of a group. */
  readonly group: string | undefined;
  /** Undefined for the default: {@link defaultTakeoverMs} within a group, no takeover outside of groups. */
  readonly takeoverMs: number | undefined;
}

export interface HandlingSettings extends Membership {
  readonly transactional: boolean;
  readonly durable: boolean;
  /** Undefined for no limit. */
  readonly timeoutMs: number | undefined;
  readonly retry: RetryPolicy;
  /** Limit of parallel calls in the current run; undefined if there is none. Batch handlers have their own. */
  limit: ConcurrencyLimit | undefined;
  /** Undefined if each message is handled alone. */
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
