/**
 * Answers to requests over one connection.
 */
import type { NatsConnection, PublishOptions } from "@nats-io/transport-node";
import { confirmed, errorHeaders, isOwnInbox } from "../../connections/index.js";
import type { ErrorReply } from "./requests.js";

/** Bytes of replies after which the NATS server must confirm that it has read them. */
const maxUnconfirmedReplyBytes = 1024 * 1024;

/** Approximate size of an answer without its payload. */
const overheadBytes = 128;

const nothing = new Uint8Array(0);

/**
 * True if a responder should answer a request that matches its subject. Replies to Hawser's own requests are never
 * answered. If the responder's subject starts with a wildcard, requests to NATS itself (`$JS.API.…`, `$KV.…`) and
 * replies to other clients are not answered either: the responder would answer in place of the server.
 */
export function isForResponder(wanted: string, requested: string): boolean {
  if (isOwnInbox(requested)) return false;
  return !/^[*>](\.|$)/.test(wanted) || !/^(\$|_INBOX\.)/.test(requested);
}

export class Replies {
  #unconfirmedBytes = 0;
  #confirming: Promise<void> | undefined;

  constructor(readonly connection: NatsConnection) {}

  /** False if the connection has closed. */
  get isOpen(): boolean {
    return !this.connection.isClosed();
  }

  /** Maximum payload of the server, in bytes. */
  get maxPayload(): number {
    return this.connection.info?.max_payload ?? Number.POSITIVE_INFINITY;
  }

  /** Sends an answer. @returns false if the connection has closed */
  send(reply: string, payload: Uint8Array): boolean {
    return this.#publish(reply, payload, {});
  }

  /** Sends an error. @returns false if the connection has closed, or its server does not support headers */
  sendError(reply: string, error: ErrorReply): boolean {
    return this.#publish(reply, nothing, { headers: errorHeaders(error) });
  }

  /**
   * Returns undefined if more answers can be sent now. Otherwise returns a promise that resolves when the server has
   * read all answers so far, or when the connection has closed. Waiting for the promise limits the memory for answers
   * that the server has not read.
   */
  backpressure(): undefined | Promise<void> {
    if (this.#unconfirmedBytes < maxUnconfirmedReplyBytes) return undefined;
    this.#confirming ??= this.#confirm();
    return this.#confirming;
  }

  #publish(reply: string, payload: Uint8Array, options: PublishOptions): boolean {
    try {
      this.connection.publish(reply, payload, options);
    } catch {
      return false;
    }
    this.#unconfirmedBytes += payload.length + overheadBytes;
    return true;
  }

  async #confirm(): Promise<void> {
    const asked = this.#unconfirmedBytes;
    await confirmed(this.connection);
    this.#unconfirmedBytes -= asked;
    this.#confirming = undefined;
  }
}
