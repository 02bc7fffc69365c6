/**
 * Publishes the role of Postgres to NATS, on each change and over each new connection.
 *
 * A process publishes `Master` if Postgres is a primary and the process is the leader. It publishes `Replica` whenever
 * Postgres is a standby, because there is no leader there. So for a primary one process publishes; for a standby each
 * process does, all with the same content. Hawser itself does not read notices. A notice may repeat.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import type { CompleteNatsServerOptions } from "../../../../generated/ts/nats-options/index.js";
import type { Logger } from "../../../foundation/runtime/index.js";
import type { NatsConnector } from "../../connections/index.js";
import { PatroniName } from "./patroni.js";
import type { PostgresRole, ServerAddress } from "./role-watch.js";

/** Connection and settings of {@link RoleNotices}. */
export interface RoleNoticesOptions {
  /** Connector of the caller; {@link RoleNotices.stop} does not stop it. */
  readonly connector: Pick<NatsConnector, "connection" | "on">;
  readonly logger: Logger;
  /** Time limit for Patroni's response. Default: `patroniTimeoutMs`. */
  readonly patroniTimeoutMs?: number;
}

export class RoleNotices implements AsyncDisposable {
  readonly #connector: RoleNoticesOptions["connector"];
  readonly #logger: Logger;
  readonly #patroni: PatroniName;
  readonly #end = new AbortController();
  readonly #listeners: readonly (() => void)[];
  #role: PostgresRole = "unknown";
  #address: ServerAddress | undefined;
  #isLeading = false;
  #options: CompleteNatsServerOptions | undefined;
  /** Key and connection of the last published notice. */
  #published: { readonly key: string; readonly connection: NatsConnection } | undefined;
  /** Last subject whose refusal was logged. */
  #refused: string | undefined;

  constructor({ connector, logger, patroniTimeoutMs }: RoleNoticesOptions) {
    this.#connector = connector;
    this.#logger = logger;
    this.#patroni = new PatroniName(logger, patroniTimeoutMs);
    this.#listeners = [
      connector.on("connected", () => void this.#publish()),
      connector.on("refused", ({ operation, subject }) => {
        if (operation === "publish" && subject === this.#options?.notify_subject) this.#logRefused(subject);
      }),
    ];
  }

  /** Updates role and address, as reported by `RoleWatch.onRole`. */
  setRole(role: PostgresRole, address: ServerAddress | undefined): void {
    this.#role = role;
    this.#address = address;
    void this.#publish();
  }

  /** Updates whether this process is the leader; initially false. */
  setLeading(leads: boolean): void {
    this.#isLeading = leads;
    void this.#publish();
  }

  /**
   * Applies `notify_subject` and `patroni_url`; undefined if no server is defined. Must be called after the connector's
   * `configure`. A new subject gets a notice at once; a new `patroni_url` alone is used for the next notice.
   */
  configure(options: CompleteNatsServerOptions | undefined): void {
    this.#options = options;
    void this.#publish();
  }

  /** Stops publishing. */
  async stop(): Promise<void> {
    this.#end.abort();
    for (const remove of this.#listeners) remove();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** Publishes the current role, unless it was published over this connection. */
  async #publish(): Promise<void> {
    const status = this.#status;
    const { connection } = this.#connector;
    if (status === undefined || this.#options === undefined) this.#published = undefined;
    if (status === undefined || this.#options === undefined || connection === undefined) return;
    const { notify_subject: subject, patroni_url: url } = this.#options;
    const key = JSON.stringify([status, subject, this.#address]);
    const isPublished = this.#published?.key === key && this.#published.connection === connection;
    if (isPublished || connection.isClosed() || this.#end.signal.aborted) return;
    const notice = (this.#published = { key, connection });
    const name = url === undefined ? null : await this.#patroni.read(url, this.#end.signal);
    // A later call replaced this notice while Patroni was asked.
    if (this.#published !== notice || this.#end.signal.aborted) return;
    try {
      connection.publish(subject, roleNotice({ status, ...this.#address!, name }));
      this.#logger.info({ status, subject, patroniName: name }, "published a role-change notice");
    } catch (err) {
      this.#logger.warn({ err, status, subject }, "cannot publish a role-change notice");
    }
  }

  get #status(): RoleNotice["status"] | undefined {
    if (this.#role === "standby") return "Replica";
    return this.#role === "primary" && this.#isLeading ? "Master" : undefined;
  }

  #logRefused(subject: string): void {
    if (subject === this.#refused) return;
    this.#refused = subject;
    this.#logger.warn(
      { subject },
      "the NATS server does not permit role-change notices, so they are not sent; permit its user to publish to the subject, " +
        "or set notify_subject to a permitted one",
    );
  }
}

/** Content of a notice. */
export interface RoleNotice {
  /** `Replica` means a standby. */
  readonly status: "Master" | "Replica";
  /** `listen_addresses` of Postgres; `*` is not expanded. */
  readonly addresses: readonly string[];
  readonly port: number;
  /** Name of this Postgres in Patroni; null if it cannot be read. */
  readonly name: string | null;
}

/** JSON of a notice, with the addresses under two keys: the code of pgnats and its README spell the key differently. */
export function roleNotice({ status, addresses, port, name }: RoleNotice): string {
  return JSON.stringify({ status, listen_adresses: addresses, listen_addresses: addresses, port, name });
}
