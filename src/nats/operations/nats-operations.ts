/**
 * Everything that SQL functions do over one connection to NATS.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import { connectionLost, timedOut } from "../failure.js";
import { ConnectionWatch } from "./connection-watch.js";
import { Deadline } from "./deadline.js";
import { KeyValue } from "./key-value.js";
import { ObjectStores } from "./object-store.js";
import { type PublishOptions, publish } from "./publish.js";
import { type RequestOptions, request } from "./request.js";
import { type ServerInfo, serverInfo } from "./server-info.js";
import { type StreamAck, StreamPublisher, type StreamPublishOptions } from "./stream-publish.js";

/**
 * The operations over one connection, which is made with `reconnect: false`: after its loss a new one gets operations of
 * its own. Each of them settles by its time limit, and throws nothing but `HawserError`. Names and subjects have been
 * checked against the spec before.
 */
export class NatsOperations {
  /** Values by key. */
  readonly keyValue: KeyValue;
  /** Files. */
  readonly objectStores: ObjectStores;
  readonly #watch: ConnectionWatch;
  readonly #streams: StreamPublisher;

  constructor(readonly connection: NatsConnection) {
    this.#watch = new ConnectionWatch(connection);
    this.#streams = new StreamPublisher(this.#watch);
    this.keyValue = new KeyValue(this.#watch);
    this.objectStores = new ObjectStores(this.#watch);
  }

  /**
   * Publishes a message. Returns undefined when it has been written to the socket already, which is so unless the server
   * reads too slowly; else a promise that resolves when it has. The payload may be reused then.
   *
   * @throws HawserError, also without a promise; see `publish` of `publish.ts`
   */
  publish(subject: string, payload: Uint8Array, options: PublishOptions): undefined | Promise<void> {
    return publish(this.#watch, subject, [payload], options);
  }

  /** Publishes many messages with one write, as {@link publish} does. All are checked before the first is sent. */
  publishBatch(subject: string, payloads: readonly Uint8Array[], options: PublishOptions): undefined | Promise<void> {
    return publish(this.#watch, subject, payloads, options);
  }

  /** Publishes into a stream, and resolves when it has stored the message; see `StreamPublisher.publish`. */
  publishStream(subject: string, payload: Uint8Array, options: StreamPublishOptions): Promise<StreamAck> {
    return this.#streams.publish(subject, payload, options);
  }

  /** Publishes many messages into a stream; see `StreamPublisher.publishBatch`. */
  publishStreamBatch(
    subject: string,
    payloads: readonly Uint8Array[],
    options: StreamPublishOptions,
  ): Promise<StreamAck[]> {
    return this.#streams.publishBatch(subject, payloads, options);
  }

  /** Asks, and resolves to the payload of the first answer; see `request` there. */
  request(subject: string, payload: Uint8Array, options: RequestOptions): Promise<Uint8Array> {
    return request(this.#watch, subject, payload, options);
  }

  /** @throws NatsError nats_unavailable */
  serverInfo(): ServerInfo {
    return serverInfo(this.connection);
  }

  /**
   * Resolves when the server has handled all that was sent before, and has reported what it refused of that.
   *
   * @throws NatsError nats_unavailable, nats_timeout; outcome_unknown, if the connection ended meanwhile
   */
  async flush({ timeoutMs }: { readonly timeoutMs: number }): Promise<void> {
    const attempt = { name: "flush", changes: true, timeoutMs };
    this.#watch.checkOpen(attempt);
    await this.#watch.settled(attempt, new Deadline(timeoutMs), this.connection.flush(), {
      timeout: () => timedOut(attempt),
      lost: () => connectionLost(attempt),
    });
  }
}
