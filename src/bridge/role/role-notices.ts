/**
 * Tells NATS of the role of Postgres: on each change, and over each new connection to NATS.
 *
 * A process states that Postgres is the master when Postgres is a primary and this process leads, and that it is a replica
 * whenever it is a standby, led or not: nobody leads there. So of several processes beside one primary one speaks; beside a
 * standby each does, and they say the same. Nothing depends on notices, and one may repeat.
 */
import type { NatsConnection } from "@nats-io/transport-node";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import type { NatsConnector } from "../../nats/index.js";
import type { Logger } from "../../runtime/index.js";
import { PatroniName } from "./patroni.js";
import type { PostgresRole, ServerAddress } from "./role-watch.js";

/** How they are published. */
export interface RoleNoticesOptions {
  /** Not ended with the notices. */
  readonly connector: Pick<NatsConnector, "connection" | "on">;
  readonly logger: Logger;
  /** How long Patroni may take for its answer. Default `patroniTimeoutMs` of the spec. */
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
  #leads = false;
  #options: CompleteNatsServerOptions | undefined;
  /** The notice that was told last, where, and over which connection. */
  #told: { readonly key: string; readonly connection: NatsConnection } | undefined;
  /** The subject whose refusal was logged. */
  #refused: string | undefined;

  constructor({ connector, logger, patroniTimeoutMs }: RoleNoticesOptions) {
    this.#connector = connector;
    this.#logger = logger;
    this.#patroni = new PatroniName(logger, patroniTimeoutMs);
    this.#listeners = [
      connector.on("connected", () => void this.#tell()),
      connector.on("refused", ({ operation, subject }) => {
        if (operation === "publish" && subject === this.#options?.notify_subject) this.#tellRefused(subject);
      }),
    ];
  }

  /** What `DatabaseWatch` tells by `onRole`. */
  found(role: PostgresRole, address: ServerAddress | undefined): void {
    this.#role = role;
    this.#address = address;
    void this.#tell();
  }

  /** This process has begun to lead, or leads no more. At first it does not. */
  lead(leads: boolean): void {
    this.#leads = leads;
    void this.#tell();
  }

  /**
   * Takes `notify_subject` and `patroni_url`; undefined: no server is defined. To be told after the connector is. Another
   * subject is told of the present role; another `patroni_url` alone is asked for the next notice.
   */
  configure(options: CompleteNatsServerOptions | undefined): void {
    this.#options = options;
    void this.#tell();
  }

  /** Publishes nothing any more. */
  async stop(): Promise<void> {
    this.#end.abort();
    for (const remove of this.#listeners) remove();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  /** Publishes what holds, unless it was told over this connection. */
  async #tell(): Promise<void> {
    const status = this.#status;
    const { connection } = this.#connector;
    if (status === undefined || this.#options === undefined) this.#told = undefined;
    if (status === undefined || this.#options === undefined || connection === undefined) return;
    const { notify_subject: subject, patroni_url: url } = this.#options;
    const key = JSON.stringify([status, subject, this.#address]);
    const isTold = this.#told?.key === key && this.#told.connection === connection;
    if (isTold || connection.isClosed() || this.#end.signal.aborted) return;
    const told = (this.#told = { key, connection });
    const name = url === undefined ? null : await this.#patroni.ask(url, this.#end.signal);
    // Another notice has taken the place of this one while Patroni was asked.
    if (this.#told !== told || this.#end.signal.aborted) return;
    try {
      connection.publish(subject, roleNotice({ status, ...this.#address!, name }));
      this.#logger.info({ status, subject, patroniName: name }, "a role-change notice is published");
    } catch (err) {
      this.#logger.warn({ err, status, subject }, "the role-change notice cannot be published");
    }
  }

  get #status(): RoleNotice["status"] | undefined {
    if (this.#role === "standby") return "Replica";
    return this.#role === "primary" && this.#leads ? "Master" : undefined;
  }

  #tellRefused(subject: string): void {
    if (subject === this.#refused) return;
    this.#refused = subject;
    this.#logger.warn(
      { subject },
      "the NATS server does not permit role-change notices, and nobody gets them: let its user publish to the subject, " +
        "or set notify_subject to one that it may publish to",
    );
  }
}

/** What a notice says. */
export interface RoleNotice {
  /** `Replica` is a standby. */
  readonly status: "Master" | "Replica";
  /** `listen_addresses` of Postgres, of which `*` stays `*`. */
  readonly addresses: readonly string[];
  readonly port: number;
  /** How Patroni calls this Postgres; null where that cannot be had. */
  readonly name: string | null;
}

/** The JSON of a notice. The addresses are in it twice: one spelling is that of pgnats's code, the other of its README. */
export function roleNotice({ status, addresses, port, name }: RoleNotice): string {
  return JSON.stringify({ status, listen_adresses: addresses, listen_addresses: addresses, port, name });
}
