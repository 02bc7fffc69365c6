/**
 * Tells NATS of the role of Postgres: once when a process starts to speak for it, and on each change.
 *
 * Three things decide what is told, and each may come at any time, in any order: the role, by `found`; whether this
 * process leads, by `lead`; and the options, by `configure`. What follows from them is said by {@link NoticeDuty}. Where
 * there is no connection, the newest statement waits for one.
 *
 * Nothing depends on notices. A server that does not permit them is logged, and one that ends the connection because of
 * them is not told again and again: then subscriptions would not live either.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { NatsConnection } from "@nats-io/transport-node";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import type { NatsConnector, Refusal } from "../../nats/index.js";
import { type Logger, whenAborted } from "../../runtime/index.js";
import { PatroniName } from "./patroni.js";
import type { PostgresRole, ServerAddress } from "./role-watch.js";

/** How they are published. */
export interface RoleNoticesOptions {
  /** Not ended with the notices. */
  readonly connector: Pick<NatsConnector, "connection" | "hasTaken" | "on">;
  readonly logger: Logger;
  /** How long Patroni may take for its answer. Default `patroniTimeoutMs` of the spec. */
  readonly patroniTimeoutMs?: number;
}

/** Connections over which a notice was tried in vain. */
interface Failures {
  readonly notice: DueNotice;
  readonly last: NatsConnection;
  readonly count: number;
}

export class RoleNotices implements AsyncDisposable {
  readonly #connector: RoleNoticesOptions["connector"];
  readonly #logger: Logger;
  readonly #patroni: PatroniName;
  readonly #duty = new NoticeDuty();
  readonly #end = new AbortController();
  readonly #ended: Promise<boolean>;
  readonly #listeners: readonly (() => void)[];
  #address: ServerAddress | undefined;
  #patroniUrl: string | undefined;
  #isSending = false;
  #sent: Promise<void> = Promise.resolve();
  #failures: Failures | undefined;
  /** The subject that a notice was published to last. */
  #subject: string | undefined;
  /** The server has refused the notice that was published last. */
  #isRefused = false;
  /** The subject whose refusal was logged. */
  #refused: string | undefined;

  constructor({ connector, logger, patroniTimeoutMs }: RoleNoticesOptions) {
    this.#connector = connector;
    this.#logger = logger;
    this.#patroni = new PatroniName(logger, patroniTimeoutMs);
    this.#ended = whenAborted(this.#end.signal).then(() => false);
    this.#listeners = [
      connector.on("connected", () => this.#wake()),
      connector.on("refused", (refusal) => this.#onRefused(refusal)),
    ];
  }

  /** What `RoleWatch` tells by `onRole`. */
  found(role: PostgresRole, address: ServerAddress | undefined): void {
    this.#address = address;
    this.#duty.found(role);
    this.#wake();
  }

  /** This process has begun to lead, or leads no more. At first it does not. */
  lead(leads: boolean): void {
    this.#duty.lead(leads);
    this.#wake();
  }

  /**
   * Takes `notify_subject` and `patroni_url`; undefined: no server is defined. To be told after the connector is: what is due
   * goes out over its connection at once. Another subject or NATS server is told of the present role; another
   * `patroni_url` alone is asked for the next notice.
   */
  configure(options: CompleteNatsServerOptions | undefined): void {
    this.#patroniUrl = options?.patroni_url;
    this.#duty.configure(options && { server: `${options.host}:${options.port}`, subject: options.notify_subject });
    this.#wake();
  }

  /** Publishes nothing any more. What is being asked or sent is not waited for. */
  async stop(): Promise<void> {
    this.#end.abort();
    for (const remove of this.#listeners) remove();
    await this.#sent;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #wake(): void {
    if (this.#isSending) return;
    this.#isSending = true;
    this.#sent = this.#sendWhatIsDue();
  }

  async #sendWhatIsDue(): Promise<void> {
    try {
      for (;;) {
        const notice = this.#duty.due;
        const connection = this.#usable(notice);
        if (notice === undefined || connection === undefined) return;
        await this.#send(notice, connection);
      }
    } catch (err) {
      this.#logger.error({ err }, "publishing a role-change notice failed in a way that was not foreseen");
    } finally {
      this.#isSending = false;
    }
  }

  /** The connection, unless the notice has to wait for another one. */
  #usable(notice: DueNotice | undefined): NatsConnection | undefined {
    const { connection } = this.#connector;
    if (this.#end.signal.aborted || connection === undefined) return undefined;
    if (connection.isClosed() || connection.isDraining()) return undefined;
    return this.#failures?.notice === notice && this.#failures?.last === connection ? undefined : connection;
  }

  async #send(notice: DueNotice, connection: NatsConnection): Promise<void> {
    const url = this.#patroniUrl;
    const name = url === undefined ? null : await this.#patroni.ask(url, this.#end.signal);
    // Meanwhile another one may be due, or there may be another connection.
    if (this.#duty.due !== notice || this.#usable(notice) !== connection) return;
    const { status, subject } = notice;
    this.#subject = subject;
    this.#isRefused = false;
    try {
      connection.publish(subject, roleNotice({ status, ...this.#address!, name }));
    } catch (err) {
      this.#duty.settle(notice);
      this.#logger.warn({ err, status, subject }, "the role-change notice cannot be published");
      return;
    }
    if (await Promise.race([this.#connector.hasTaken(connection), this.#ended])) {
      this.#duty.settle(notice);
      // A refusal comes before the confirmation, but its listeners may hear of it some steps later.
      await nextTurn();
      if (!this.#isRefused) this.#logger.info({ status, subject, patroniName: name }, "the role-change notice is sent");
    } else if (!this.#end.signal.aborted) {
      this.#fail(notice, connection);
    }
  }

  /** The connection may have ended before the server had it: told twice is better than not at all. */
  #fail(notice: DueNotice, last: NatsConnection): void {
    const count = this.#failures?.notice === notice ? this.#failures.count + 1 : 1;
    this.#failures = { notice, last, count };
    this.#logger.debug({ ...notice, connections: count }, "the NATS server has not confirmed the role-change notice");
    if (count < bridgeConstants.maxNoticeAttempts) return;
    this.#duty.settle(notice);
    this.#logger.warn(
      { ...notice, connections: count },
      "the role-change notice is given up: the NATS server confirmed it over no connection",
    );
  }

  #onRefused({ operation, subject }: Refusal): void {
    if (operation !== "publish" || subject !== this.#subject) return;
    this.#isRefused = true;
    if (subject === this.#refused) return;
    this.#refused = subject;
    this.#logger.warn(
      { subject },
      "the NATS server does not permit role-change notices, and nobody gets them: let its user publish to the subject, " +
        "or set notify_subject to one that it may publish to",
    );
  }
}

/** A notice that is due. The same object as long as nothing has changed. */
export interface DueNotice {
  readonly status: RoleNotice["status"];
  readonly subject: string;
}

/** Where notices go. */
export interface NoticePlace {
  /** The NATS server, `host:port`. */
  readonly server: string;
  readonly subject: string;
}

/**
 * Which role-change notice is due: pure bookkeeping, without a clock or a connection.
 *
 * A process states that Postgres is the master when Postgres is a primary and this process leads, and that it is a
 * replica whenever it is a standby, led or not: nobody leads there. So of several processes beside one primary one
 * speaks; beside a standby each does, and they say the same. A statement is made once for each place, that is NATS
 * server and subject: again only after it had ceased to hold, be it that Postgres was away, and at another place.
 */
export class NoticeDuty {
  #role: PostgresRole = "unknown";
  #leads = false;
  #place: NoticePlace | undefined;
  /** The statement that holds, made or not, and where. */
  #statement: { readonly key: string; readonly notice: DueNotice; isSettled: boolean } | undefined;

  /** The notice that is to be published, if one is. */
  get due(): DueNotice | undefined {
    return this.#statement?.isSettled ? undefined : this.#statement?.notice;
  }

  found(role: PostgresRole): void {
    this.#role = role;
    this.#update();
  }

  lead(leads: boolean): void {
    this.#leads = leads;
    this.#update();
  }

  /** @param place undefined: there is none */
  configure(place: NoticePlace | undefined): void {
    this.#place = place;
    this.#update();
  }

  /** It has been published, or is given up. Does nothing if it is not due any more. */
  settle(notice: DueNotice): void {
    if (this.#statement?.notice === notice) this.#statement.isSettled = true;
  }

  #update(): void {
    const status = this.#status();
    if (status === undefined || this.#place === undefined) {
      this.#statement = undefined;
      return;
    }
    const { server, subject } = this.#place;
    const key = `${status} ${server} ${subject}`;
    if (key === this.#statement?.key) return;
    this.#statement = { key, notice: { status, subject }, isSettled: false };
  }

  #status(): DueNotice["status"] | undefined {
    if (this.#role === "standby") return "Replica";
    return this.#role === "primary" && this.#leads ? "Master" : undefined;
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
