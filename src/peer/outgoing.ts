/** Sends: each message on its way out, the promise that its caller waits for, and what that becomes. */
import type { Headers, OutgoingMessage, PayloadEncoding, SendOutcome } from "../channel/index.js";
import { HawserError } from "../errors/index.js";
import type { Batch, Delivery, PayloadCompression, PayloadHeaders } from "../wire/index.js";
import { frameHeaders } from "./frame-headers.js";
import type { AnyReceipt } from "./message.js";

/** What a message is for. Shared by all messages of the topic, so that a new key reaches those that wait, too. */
export interface MessageTopic {
  readonly topic: string;
  topicKey: number;
}

/** A send as its caller knows it. */
export interface Sent {
  readonly promise: Promise<AnyReceipt>;
  /** The caller waits no more: its bytes are its own from here on. */
  keep(): void;
}

type Resolve = (receipt: AnyReceipt | PromiseLike<never>) => void;

/**
 * One send: the message as the channel knows it, and the promise that its caller waits for. One small object, because
 * there may be very many of them at a time.
 */
export class Outgoing implements OutgoingMessage, Sent {
  readonly promise: Promise<AnyReceipt>;
  encoding: PayloadEncoding | undefined = undefined;
  #resolve!: Resolve;

  readonly delivery: Delivery;
  readonly topic: MessageTopic;
  payload: Uint8Array;
  readonly headers: Headers | undefined;

  constructor(delivery: Delivery, topic: MessageTopic, payload: Uint8Array, headers: Headers | undefined) {
    this.delivery = delivery;
    this.topic = topic;
    this.payload = payload;
    this.headers = headers;
    // Written so, the compiler leaves out what is not used of it.
    this.promise = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  get topicKey(): number {
    return this.topic.topicKey;
  }

  /** Ends the wait as the channel says. */
  settle(outcome: SendOutcome, receipts: Receipts): void {
    const receipt = receipts[outcome as AnyReceipt["outcome"]] as AnyReceipt | undefined;
    if (receipt !== undefined) {
      this.#resolve(receipt);
      return;
    }
    if (outcome === "timed-out") this.keep();
    this.fail(failures[outcome as keyof typeof failures](receipts.sent.peer));
  }

  /** The caller waits no more, but the message is still to be sent: from here on its bytes are its own. */
  keep(): void {
    this.payload = new Uint8Array(this.payload);
  }

  /** Ends the wait with an error. */
  fail(error: unknown): void {
    this.#resolve(Promise.reject(error));
  }
}

/** Messages of one topic as a connection writes them. */
export function batchOf(
  epoch: number,
  delivery: Delivery,
  topicKey: number,
  firstNumber: number,
  messages: readonly Outgoing[],
): Batch {
  const payloads = new Array<Uint8Array>(messages.length);
  const headers: PayloadHeaders[] = [];
  const compressions: PayloadCompression[] = [];
  for (let index = 0; index < messages.length; index++) {
    const message = messages[index] as Outgoing;
    payloads[index] = message.payload;
    if (message.headers !== undefined) headers.push({ index, headers: frameHeaders(message.headers) });
    if (message.encoding !== undefined) {
      compressions.push({ index, ...message.encoding });
    }
  }
  return { epoch, delivery, firstNumber, topicKey, payloads, compressions, headers };
}

/** A link's receipts, one for each outcome: shared by all its messages. */
export type Receipts = Readonly<Record<AnyReceipt["outcome"], AnyReceipt>>;

/** The receipts of sends to a listener. */
export function receiptsFor(peer: string): Receipts {
  const of = (outcome: AnyReceipt["outcome"]): AnyReceipt => Object.freeze({ outcome, peer });
  return { delivered: of("delivered"), stored: of("stored"), sent: of("sent"), dropped: of("dropped") };
}

const unknown = { outcome: "unknown" } as const;

/** The errors of sends that have failed. */
const failures = {
  "timed-out": (peer: string) =>
    new HawserError(
      "store_failed",
      `the message for "${peer}" was neither acknowledged nor stored in time; it is still tried and may arrive`,
      unknown,
    ),
  fenced: (peer: string) =>
    new HawserError("name_lost", `the peer's name was lost before the message for "${peer}" was confirmed`, unknown),
  abandoned: (peer: string) =>
    new HawserError("store_failed", `the peer stopped before the message for "${peer}" was confirmed`, unknown),
};

/**
 * Who waits with which signal. One listener for all sends with a signal: thousands may share one, and Node warns of more
 * than ten listeners.
 */
const waits = new WeakMap<AbortSignal, { readonly callbacks: Set<() => void>; readonly listener: () => void }>();

/** Calls back when the signal is aborted. @returns what ends that */
export function onAbort(signal: AbortSignal, callback: () => void): () => void {
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
export function abortedBefore(signal: AbortSignal): HawserError {
  return new HawserError("aborted", "the send was aborted before it began", { cause: signal.reason });
}

/**
 * Waits for a receipt until the signal is aborted; then `onLeft` is called.
 *
 * @throws HawserError `aborted`, with outcome `unknown`
 */
export function abortable(promise: Promise<AnyReceipt>, signal: AbortSignal, onLeft: () => void): Promise<AnyReceipt> {
  return new Promise((resolve, reject) => {
    const leave = (): void => {
      onLeft();
      const text = "the wait for the send was aborted; the message may still arrive";
      reject(new HawserError("aborted", text, { cause: signal.reason, outcome: "unknown" }));
    };
    const unlisten = onAbort(signal, leave);
    promise.finally(unlisten).then(resolve, reject);
    if (signal.aborted) leave();
  });
}
