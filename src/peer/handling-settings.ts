/** How the messages of a topic are handled, with all that is left to the peer. */
import {
  type BatchSettings,
  type PeerSettings,
  type RetrySettings,
  retrySettingsDefaults,
} from "../../generated/ts/settings/peer.js";
import type { RetryPolicy } from "../channel/index.js";
import type { TransactionalMessage } from "./message.js";

/** How messages are handled together, and by what. Those of one object may be in one batch. */
export interface BatchHandling {
  readonly settings: BatchSettings;
  /** What the handler gets of a message. @throws what is wrong with it: then it fails alone, before the batch is handled */
  decode(message: TransactionalMessage): unknown;
  /** @param fail says that the message at an index fails, whatever becomes of the others */
  handle(
    messages: readonly TransactionalMessage[],
    values: readonly unknown[],
    fail: (index: number, error: unknown) => void,
  ): unknown;
}

export interface HandlingSettings {
  readonly transactional: boolean;
  /** Undefined: no limit. */
  readonly timeoutMs: number | undefined;
  readonly retry: RetryPolicy;
  /** Messages are handled together; undefined: each alone. */
  readonly batch: BatchHandling | undefined;
}

/** How a peer handles what nothing else was said of. */
export function handlingOf(settings: PeerSettings): HandlingSettings {
  const { transactional, handlerTimeoutMs, maxAttempts, retryDelayMs } = settings;
  const retry = policyOf({ ...retrySettingsDefaults, attempts: maxAttempts, delayMs: retryDelayMs });
  return { transactional, timeoutMs: handlerTimeoutMs, retry, batch: undefined };
}

export function policyOf(retry: RetrySettings & { readonly attempts: number; readonly delayMs: number }): RetryPolicy {
  const { attempts, delayMs, factor, maxDelayMs, jitterPercent } = retry;
  return {
    attempts,
    delayMs: (begun) => {
      const full = Math.min(delayMs * factor ** (begun - 1), maxDelayMs);
      return full * (1 - (Math.random() * jitterPercent) / 100);
    },
  };
}
