import type { DeliveryMode, Headers, OutgoingMessage, PayloadEncoding, SendOutcome } from "../channel/index.js";
import type { OutgoingBatch } from "../wire/index.js";
import { referencedPayloadBytes } from "../wire/index.js";
import type { Receipt } from "./message.js";
import { failureOf, isFailure, type Receipts } from "./receipts.js";

/** What a message is for. Shared by all messages of the topic, so that a new key reaches those that wait, too. */
export interface MessageTopic {
  readonly topic: string;
  topicKey: number;
}

type Resolve = (receipt: Receipt | PromiseLike<never>) => void;

/**
 * One send: the message as the channel knows it, and the promise that its caller waits for. One small object, because
 * there may be very many of them at a time.
 */
export class Outgoing implements OutgoingMessage {
  readonly promise: Promise<Receipt>;
  encoding: PayloadEncoding | undefined = undefined;
  #resolve!: Resolve;

  readonly delivery: DeliveryMode;
  readonly topic: MessageTopic;
  payload: Uint8Array;
  readonly headers: Headers | undefined;

  constructor(delivery: DeliveryMode, topic: MessageTopic, payload: Uint8Array, headers: Headers | undefined) {
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
    if (!isFailure(outcome)) {
      this.#resolve(receipts[outcome]);
      return;
    }
    if (outcome === "timed-out") this.keep();
    this.fail(failureOf(outcome, receipts));
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
  delivery: DeliveryMode,
  topicKey: number,
  firstNumber: number,
  messages: readonly Outgoing[],
): OutgoingBatch {
  const payloads = new Array<Uint8Array>(messages.length);
  let headers: { index: number; headers: Headers }[] | undefined;
  let compressions: { index: number; compression: "gzip" | "zstd"; uncompressedBytes: number }[] | undefined;
  for (let index = 0; index < messages.length; index++) {
    const message = messages[index] as Outgoing;
    // Such a long one stays in the connection by reference, perhaps longer than the caller waits.
    const isLent = message.payload.length >= referencedPayloadBytes && message.encoding === undefined;
    payloads[index] = isLent ? new Uint8Array(message.payload) : message.payload;
    if (message.headers !== undefined) {
      headers ??= [];
      headers.push({ index, headers: message.headers });
    }
    if (message.encoding !== undefined) {
      compressions ??= [];
      compressions.push({ index, ...message.encoding });
    }
  }
  const batch = { epoch, delivery, firstNumber, topicKey, payloads };
  return headers === undefined && compressions === undefined ? batch : { ...batch, headers, compressions };
}
