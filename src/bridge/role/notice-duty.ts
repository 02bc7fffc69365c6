/**
 * Which role-change notice is due: pure bookkeeping, without a clock or a connection.
 *
 * A process states that Postgres is the master when Postgres is a primary and this process leads, and that it is a
 * replica whenever it is a standby, led or not: nobody leads there. So of several processes beside one primary one
 * speaks; beside a standby each does, and they say the same. A statement is made once for each place, that is NATS
 * server and subject: again only after it had ceased to hold, be it that Postgres was away, and at another place.
 */
import type { RoleNotice } from "./role-notice.js";
import type { PostgresRole } from "./role-watch.js";

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

/** See above. */
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
