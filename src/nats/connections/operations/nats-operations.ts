/**
 * All operations of SQL functions over one connection to NATS.
 */
import type { NatsConnection, ServerInfo } from "@nats-io/transport-node";
import type { GetServerInfoResponse } from "../../../../generated/ts/nats-functions/methods.js";
import { HawserError } from "../../../foundation/errors/index.js";
import { Deadline } from "../../../foundation/runtime/index.js";
import { ConnectionWatch } from "./connection-watch.js";
import { type PublishOptions, publish, publishSoon, type RequestOptions, request } from "./core.js";
import { connectionLost, timedOut } from "./failure.js";
import { KeyValue } from "./key-value.js";
import { ObjectStores } from "./object-store.js";
import { StreamManagement } from "./stream-management.js";
import { StreamPublisher } from "./stream-publish.js";

/**
 * Operations over one connection, which must have been made with `reconnect: false`: a new connection needs a new
 * instance. Each operation ends within its time limit and throws only `HawserError`. Names and subjects must have been
 * checked against the spec.
 */
export class NatsOperations {
  /** Key-value buckets. */
  readonly keyValue: KeyValue;
  /** Object stores. */
  readonly objectStores: ObjectStores;
  /** Publishes into streams. */
  readonly streams: StreamPublisher;
  /** Creation, change, deletion and list of streams. */
  readonly streamManagement: StreamManagement;
  readonly #watch: ConnectionWatch;

  constructor(readonly connection: NatsConnection) {
    this.#watch = new ConnectionWatch(connection);
    this.streams = new StreamPublisher(this.#watch);
    this.streamManagement = new StreamManagement(this.#watch);
    this.keyValue = new KeyValue(this.#watch);
    this.objectStores = new ObjectStores(this.#watch);
  }

  /**
   * Publishes a message. Returns undefined if the message is already written to the socket, which is the case unless
   * the server reads too slowly; otherwise a promise that resolves when it is written. The payload may be reused from
   * then on.
   *
   * @throws HawserError, thrown or as a rejection; see `publish` of `core.ts`
   */
  publish(subject: string, payload: Uint8Array, options: PublishOptions): undefined | Promise<void> {
    return publish(this.#watch, subject, [payload], options);
  }

  /** Publishes many messages with one write, as {@link publish} does. All are checked before the first is sent. */
  publishBatch(subject: string, payloads: readonly Uint8Array[], options: PublishOptions): undefined | Promise<void> {
    return publish(this.#watch, subject, payloads, options);
  }

  /**
   * Publishes a message together with others of this turn of the event loop; {@link flush} shows whether it has
   * arrived. See `publishSoon` of `core.ts`.
   */
  publishSoon(subject: string, payload: Uint8Array, options: PublishOptions): Promise<void> {
    return publishSoon(this.#watch, subject, payload, options);
  }

  /** Sends a request and resolves with the payload of the first answer; see `request` of `core.ts`. */
  request(subject: string, payload: Uint8Array, options: RequestOptions): Promise<Uint8Array> {
    return request(this.#watch, subject, payload, options);
  }

  /**
   * Properties of the server and the connection, from its last INFO.
   *
   * @throws HawserError nats_unavailable, if the connection has closed
   */
  serverInfo(): GetServerInfoResponse {
    // Old and other servers omit fields, whatever the type of nats.js says.
    const info: Partial<ServerInfo> | undefined = this.connection.info;
    if (info === undefined || this.connection.isClosed()) {
      throw new HawserError("nats_unavailable", "There is no connection to NATS, so its server is unknown.");
    }
    const tlsRequired = info.tls_required ?? false;
    return {
      serverId: info.server_id ?? "",
      serverName: info.server_name ?? "",
      host: info.host ?? "",
      port: info.port ?? 0,
      version: info.version ?? "",
      authRequired: info.auth_required ?? false,
      tlsRequiered: tlsRequired,
      tlsRequired,
      maxPayload: BigInt(info.max_payload ?? 0),
      proto: info.proto ?? 0,
      clientId: BigInt(info.client_id ?? 0),
      go: info.go ?? "",
      nonce: info.nonce,
      connectUrls: info.connect_urls,
      clientIp: info.client_ip,
      headers: info.headers ?? false,
      lameDuckMode: info.ldm ?? false,
    };
  }

  /**
   * Resolves when the server has processed everything that was sent before, and has reported its refusals.
   *
   * @throws HawserError nats_unavailable, nats_timeout; outcome_unknown, if the connection closed meanwhile
   */
  async flush({ timeoutMs }: { readonly timeoutMs: number }): Promise<void> {
    const attempt = { name: "flush", changes: true, timeoutMs };
    this.#watch.checkOpen(attempt);
    this.#watch.writer.flush();
    await this.#watch.withLimits(attempt, new Deadline(timeoutMs), this.connection.flush(), {
      timeout: () => timedOut(attempt),
      lost: () => connectionLost(attempt),
    });
    // nats.js delivers one status event after another, each some microtasks later: the answer to the flush would overtake
    // refusals that came in the same piece.
    await new Promise((resolve) => setImmediate(resolve));
  }
}
