/**
 * Everything that SQL functions do over one connection to NATS.
 */
import type { NatsConnection, ServerInfo } from "@nats-io/transport-node";
import type { GetServerInfoResponse } from "../../../generated/ts/nats-functions/methods.js";
import { HawserError } from "../../errors/index.js";
import { Deadline } from "../../runtime/index.js";
import { ConnectionWatch } from "./connection-watch.js";
import { type PublishOptions, publish, type RequestOptions, request } from "./core.js";
import { DownloadBudget } from "./delivery.js";
import { connectionLost, timedOut } from "./failure.js";
import { KeyValue } from "./key-value.js";
import { ObjectStores } from "./object-store.js";
import { StreamPublisher } from "./stream-publish.js";

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
  /** Publishing into streams. */
  readonly streams: StreamPublisher;
  readonly #watch: ConnectionWatch;

  constructor(readonly connection: NatsConnection) {
    this.#watch = new ConnectionWatch(connection);
    this.streams = new StreamPublisher(this.#watch);
    const budget = new DownloadBudget(connection);
    this.keyValue = new KeyValue(this.#watch, budget);
    this.objectStores = new ObjectStores(this.#watch, budget);
  }

  /**
   * Publishes a message. Returns undefined when it has been written to the socket already, which is so unless the server
   * reads too slowly; else a promise that resolves when it has. The payload may be reused then.
   *
   * @throws HawserError, also without a promise; see `publish` of `core.ts`
   */
  publish(subject: string, payload: Uint8Array, options: PublishOptions): undefined | Promise<void> {
    return publish(this.#watch, subject, [payload], options);
  }

  /** Publishes many messages with one write, as {@link publish} does. All are checked before the first is sent. */
  publishBatch(subject: string, payloads: readonly Uint8Array[], options: PublishOptions): undefined | Promise<void> {
    return publish(this.#watch, subject, payloads, options);
  }

  /** Asks, and resolves to the payload of the first answer; see `request` of `core.ts`. */
  request(subject: string, payload: Uint8Array, options: RequestOptions): Promise<Uint8Array> {
    return request(this.#watch, subject, payload, options);
  }

  /**
   * The server and the connection to it, as the server has told it last.
   *
   * @throws HawserError nats_unavailable, if there is no connection any more
   */
  serverInfo(): GetServerInfoResponse {
    // Old and other servers leave things out, whatever the library's type says.
    const info: Partial<ServerInfo> | undefined = this.connection.info;
    if (info === undefined || this.connection.isClosed()) {
      throw new HawserError("nats_unavailable", "There is no connection to NATS, so nothing is known of its server.");
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
   * Resolves when the server has handled all that was sent before, and has reported what it refused of that.
   *
   * @throws HawserError nats_unavailable, nats_timeout; outcome_unknown, if the connection ended meanwhile
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
