/** Outgoing messages with the promises of their senders. */

import type {
  Batch,
  Delivery,
  PayloadCompression,
  PayloadHeaders,
} from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { HawserError } from "../../../foundation/errors/index.js";
import type { Headers, OutgoingMessage, PayloadEncoding, SendOutcome } from "../../channel/index.js";
import type { AnyReceipt } from "../../handlers/message.js";
import { outcomeOfFailure, type SentCounts } from "../../worker/counters.js";
import { frameHeaders } from "../core/frame-headers.js";

/** Topic of messages. All messages of a topic share this object, so that a new id also applies to waiting ones. */
export interface MessageTopic {
  readonly topic: string;
  topicId: number;
  readonly counts: SentCounts;
}

/** Message with validated arguments. */
export interface CheckedMessage {
  readonly delivery: Delivery;
  /** Replaced by a copy when the caller stops waiting, because the caller may then reuse its buffer. */
  payload: Uint8Array;
  headers: Headers | undefined;
  /** Messages with the same key go to the same listener. */
  readonly key: string | undefined;
}

/** Pending send, as its caller uses it. */
export interface Sent {
  readonly promise: Promise<AnyReceipt>;
  /** Copies the payload, because the caller stops waiting and may reuse its buffer. */
  copyPayload(): void;
}

type Resolve = (receipt: AnyReceipt | PromiseLike<never>) => void;

/**
 * Outgoing message of a channel together with the promise of its send: one object instead of two, because there may be
 * very many at a time.
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
    // An executor that only stores `resolve` is cheaper: `reject` is not captured.
    this.promise = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  get topicId(): number {
    return this.topic.topicId;
  }

  /** Settles the promise with the outcome of the channel. */
  complete(outcome: SendOutcome, receipts: Receipts): void {
    const receipt = receipts[outcome as AnyReceipt["outcome"]] as AnyReceipt | undefined;
    const { sends } = this.topic.counts;
    if (receipt !== undefined) {
      sends[outcome as AnyReceipt["outcome"]] += 1;
      this.#resolve(receipt);
      return;
    }
    if (outcome === "timed-out") this.copyPayload();
    sends.unknown += 1;
    this.#reject(failures[outcome as keyof typeof failures](receipts.sent.peer));
  }

  /** Copies the payload, because the caller stops waiting and may reuse its buffer; the message is still sent. */
  copyPayload(): void {
    this.payload = new Uint8Array(this.payload);
  }

  /** Rejects the promise of a message that was not sent, or may not have been. */
  fail(error: HawserError): void {
    this.topic.counts.sends[error.outcome ?? outcomeOfFailure(error)] += 1;
    this.#reject(error);
  }

  #reject(error: HawserError): void {
    this.#resolve(Promise.reject(error));
  }
}

/** Encodes messages of one topic as a batch. */
export function batchOf(
  epoch: number,
  delivery: Delivery,
  topicId: number,
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
  return { epoch, delivery, firstNumber, topicId, payloads, compressions, headers };
}

/** Receipts by outcome. All messages of a link share these objects. */
export type Receipts = Readonly<Record<AnyReceipt["outcome"], AnyReceipt>>;

/** Creates the receipts of sends to a listener. */
export function receiptsFor(peer: string): Receipts {
  const of = (outcome: AnyReceipt["outcome"]): AnyReceipt => Object.freeze({ outcome, peer });
  return { delivered: of("delivered"), stored: of("stored"), sent: of("sent"), dropped: of("dropped") };
}

const unknown = { outcome: "unknown" } as const;

/** Errors of failed sends by outcome. */
const failures = {
  "timed-out": (peer: string) =>
    new HawserError(
      "store_failed",
      `the message for "${peer}" was neither acknowledged nor stored in time; it is still retried and may arrive`,
      unknown,
    ),
  fenced: (peer: string) =>
    new HawserError("name_lost", `the peer lost its name before the message for "${peer}" was confirmed`, unknown),
  abandoned: (peer: string) =>
    new HawserError("store_failed", `the peer stopped before the message for "${peer}" was confirmed`, unknown),
};

/**
 * Callbacks by signal. Each signal has one event listener for all sends, because thousands of sends may share a signal
 * and Node warns about more than ten listeners.
 */
const waits = new WeakMap<AbortSignal, { readonly callbacks: Set<() => void>; readonly listener: () => void }>();

/** Calls back when the signal is aborted. @returns a function that removes the callback */
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

/** Checks a signal before anything is sent. @throws HawserError `invalid_argument` */
export function checkSignal(signal: AbortSignal | undefined): void {
  // Not `instanceof`: some test environments have a class AbortSignal of their own.
  if (signal === undefined || typeof signal?.addEventListener === "function") return;
  const given = signal === null ? "null" : `of type ${typeof signal}`;
  throw new HawserError("invalid_argument", `signal: must be an AbortSignal, and is ${given}`);
}

/** Error of a send whose signal was already aborted. */
export function abortedBefore(signal: AbortSignal): HawserError {
  return new HawserError("aborted", "the send was aborted before it started", { cause: signal.reason });
}

/**
 * Waits for a receipt until the signal is aborted; `onLeft` is called in that case.
 *
 * @throws HawserError `aborted`, with outcome `unknown`
 */
export function abortable(promise: Promise<AnyReceipt>, signal: AbortSignal, onLeft: () => void): Promise<AnyReceipt> {
  return new Promise((resolve, reject) => {
    const leave = (): void => {
      onLeft();
      const text = "waiting for the send was aborted; the message may still arrive";
      reject(new HawserError("aborted", text, { cause: signal.reason, outcome: "unknown" }));
    };
    const unlisten = onAbort(signal, leave);
    promise.finally(unlisten).then(resolve, reject);
    if (signal.aborted) leave();
  });
}
