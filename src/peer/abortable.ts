/** AbortSignals of sends: they end the wait of a caller, not the message. */
import { PeerError } from "../errors/index.js";
import type { Receipt } from "./message.js";

/**
 * Who waits with which signal. One listener for all sends with a signal: thousands may share one, and Node warns of more
 * than ten listeners.
 */
const waits = new WeakMap<AbortSignal, { readonly callbacks: Set<() => void>; readonly listener: () => void }>();

/** Calls back when the signal is aborted. @returns what ends that */
function onAbort(signal: AbortSignal, callback: () => void): () => void {
  let waiting = waits.get(signal);
  if (waiting === undefined) {
    const callbacks = new Set<() => void>();
    waiting = {
      callbacks,
      listener: () => {
        for (const each of [...callbacks]) each();
      },
    };
    waits.set(signal, waiting);
    signal.addEventListener("abort", waiting.listener, { once: true });
  }
  const { callbacks, listener } = waiting;
  callbacks.add(callback);
  return () => {
    callbacks.delete(callback);
    if (callbacks.size > 0) return;
    signal.removeEventListener("abort", listener);
    waits.delete(signal);
  };
}

/** The caller's signal was aborted before anything was sent. */
export function abortedBefore(signal: AbortSignal): PeerError {
  return new PeerError("aborted", "the send was aborted before it began", { cause: signal.reason });
}

/**
 * Waits for a receipt until the signal is aborted; then `onLeft` is called.
 *
 * @throws PeerError `aborted`, with outcome `unknown`
 */
export async function abortable(promise: Promise<Receipt>, signal: AbortSignal, onLeft: () => void): Promise<Receipt> {
  const abandoned = (): PeerError =>
    new PeerError("aborted", "the wait for the send was aborted; the message may still arrive", {
      cause: signal.reason,
      outcome: "unknown",
    });
  if (signal.aborted) {
    onLeft();
    promise.catch(() => undefined);
    throw abandoned();
  }
  let done: (() => void) | undefined;
  try {
    return await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        done = onAbort(signal, () => {
          onLeft();
          reject(abandoned());
        });
      }),
    ]);
  } finally {
    done?.();
  }
}
