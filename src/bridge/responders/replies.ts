/**
 * Answers on their way out over one connection.
 */
import type { NatsConnection, PublishOptions } from "@nats-io/transport-node";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { confirmed, errorHeaders, isOwnInbox } from "../../nats/index.js";
import type { ErrorReply } from "./requests.js";

/** What an answer has beside its payload, about. */
const overheadBytes = 128;

const nothing = new Uint8Array(0);

/**
 * Whether a responder is meant by a request that its subject takes in. None is by answers to requests of Hawser. One with a
 * wildcard as its first word is not by those to NATS itself (`$JS.API.…`, `$KV.…`), nor by answers to others: it would
 * answer in the place of the server.
 */
export function isMeant(wanted: string, requested: string): boolean {
  if (isOwnInbox(requested)) return false;
  return !/^[*>](\.|$)/.test(wanted) || !/^(\$|_INBOX\.)/.test(requested);
}

export class Replies {
  #unconfirmedBytes = 0;
  #confirming: Promise<void> | undefined;

  constructor(readonly connection: NatsConnection) {}

  /** False: nothing can be answered any more. */
  get isOpen(): boolean {
    return !this.connection.isClosed();
  }

  /** The most that the server takes, in bytes. */
  get maxPayload(): number {
    return this.connection.info?.max_payload ?? Number.POSITIVE_INFINITY;
  }

  /** Sends an answer. @returns false if it cannot be sent: the connection has ended */
  send(reply: string, payload: Uint8Array): boolean {
    return this.#publish(reply, payload, {});
  }

  /** Sends an error. @returns false if it cannot be sent: the connection has ended, or its server knows no headers */
  sendError(reply: string, error: ErrorReply): boolean {
    return this.#publish(reply, nothing, { headers: errorHeaders(error) });
  }

  /**
   * Where more can be sent, at once; else when the server has read what was sent, or the connection has ended. A caller that waits
   * for it before making the next answer does not fill memory with answers that nobody reads.
   */
  room(): undefined | Promise<void> {
    if (this.#unconfirmedBytes < bridgeConstants.maxUnconfirmedReplyBytes) return undefined;
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
