import type { Headers, OutgoingMessage, PayloadEncoding, SendOutcome } from "../channel/index.js";
import {
  type Batch,
  type Delivery,
  type PayloadCompression,
  type PayloadHeaders,
  referencedPayloadBytes,
} from "../wire/index.js";
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
    // Such a long one stays in the connection by reference, perhaps longer than the caller waits.
    const isLent = message.payload.length >= referencedPayloadBytes && message.encoding === undefined;
    payloads[index] = isLent ? new Uint8Array(message.payload) : message.payload;
    if (message.headers !== undefined) {
      headers.push({ index, headers: message.headers.map(([name, value]) => ({ name, value })) });
    }
    if (message.encoding !== undefined) {
      compressions.push({ index, ...message.encoding });
    }
  }
  return { epoch, delivery, firstNumber, topicKey, payloads, compressions, headers };
}
