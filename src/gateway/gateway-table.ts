/**
 * The table in which Postgres finds its gateways, and the row of this one. Each row has an owner, so that several behind one
 * address do not take each other out, and says when that one was last there.
 */

import { randomUUID } from "node:crypto";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";

/** An address at which Postgres reaches a gateway, and how. */
export interface GatewayAddress {
  readonly host: string;
  readonly port: number;
  readonly sslmode: "disable" | "require" | "verify-ca" | "verify-full";
  /** On the machine of Postgres. */
  readonly rootCertificate: string | undefined;
}

/** The NATS server that a process stands on. */
export interface GatewayStanding {
  /** Its `host:port`, as the options name it. */
  readonly server: string;
  /** What it calls itself. */
  readonly serverId: string | undefined;
}

/** Another gateway that is entered. */
export interface GatewayEntry {
  readonly host: string;
  readonly port: number;
  readonly sslmode: string;
  readonly rootCertificate: string | null;
  readonly owner: string;
  /** The NATS server that its process stands on. */
  readonly natsServer: string | null;
  /** As Postgres writes it: tells whether its gateway was there since. */
  readonly seenAt: string;
  /** Its gateway was not there for longer than one that runs ever is. */
  readonly isStale: boolean;
}

const sql = {
  // What its gateway has entered stays as it is, or comes back as it was.
  enter: `INSERT INTO hawser.gateways (host, port, owner, sslmode, root_certificate, started_at, seen_at, nats_server, nats_server_id)
    VALUES ($1, $2, $3, $4, $5, coalesce($6::timestamptz, now()), now(), $7, $8)
    ON CONFLICT (host, port, owner) DO UPDATE
      SET seen_at = excluded.seen_at, nats_server = excluded.nats_server, nats_server_id = excluded.nats_server_id
    RETURNING started_at::text AS "startedAt"`,
  succeed: "DELETE FROM hawser.gateways AS g WHERE g.host = $1 AND g.port = $2 AND g.owner NOT IN ('', $3)",
  // Those that somebody entered by hand are left to him.
  others: `SELECT g.host, g.port, g.sslmode, g.root_certificate AS "rootCertificate", g.owner, g.nats_server AS "natsServer",
      g.seen_at::text AS "seenAt", g.seen_at < now() - $2 * interval '1 ms' AS "isStale"
    FROM hawser.gateways AS g WHERE g.owner NOT IN ('', $1)`,
  forget: `DELETE FROM hawser.gateways AS g
    WHERE g.host = $1 AND g.port = $2 AND g.owner = $3 AND g.seen_at = $4`,
  leave: "DELETE FROM hawser.gateways AS g WHERE g.owner = $1",
} as const;

/** The NATS servers that processes of the database stand on now, each as often as they do. */
export async function standings(session: PostgresSession): Promise<string[]> {
  const others = await session.query<GatewayEntry>(sql.others, ["", gatewayConstants.gatewayStaleMs]);
  return others.flatMap(({ isStale, natsServer }) => (isStale ? [] : (natsServer ?? [])));
}

/** See above. On a standby, where nothing can be written, it does nothing and knows of nobody. */
export class GatewayTable {
  /** A random name of this process. */
  readonly owner = randomUUID();
  #startedAt: string | undefined;
  #isEntered = false;
  #isLeft = false;

  readonly #session: PostgresSession;
  readonly #own: GatewayAddress;

  /**
   * @param session with Postgres
   * @param own the address of this gateway
   */
  constructor(session: PostgresSession, own: GatewayAddress) {
    this.#session = session;
    this.#own = own;
  }

  /** Enters this gateway, or says that it is there still, and which NATS server it stands on. @returns whether it is entered: not on a standby */
  async enter(standing: GatewayStanding | undefined): Promise<boolean> {
    if ((await this.#session.isStandby()) || this.#isLeft) return false;
    const { host, port, sslmode, rootCertificate = null } = this.#own;
    this.#isEntered = true;
    const values = [
      host,
      port,
      this.owner,
      sslmode,
      rootCertificate,
      this.#startedAt,
      standing?.server,
      standing?.serverId,
    ];
    const [row] = await this.#session.query<{ startedAt: string }>(sql.enter, values);
    this.#startedAt ??= row!.startedAt;
    return true;
  }

  /** Takes out who had the address of this gateway before, where only one can have it. */
  async succeed(): Promise<void> {
    await this.#session.query(sql.succeed, [this.#own.host, this.#own.port, this.owner]);
  }

  /** The gateways of other processes. */
  others(): Promise<GatewayEntry[]> {
    return this.#session.query<GatewayEntry>(sql.others, [this.owner, gatewayConstants.gatewayStaleMs]);
  }

  /** Takes one out, unless it was there meanwhile. */
  async forget({ host, port, owner, seenAt }: GatewayEntry): Promise<void> {
    await this.#session.query(sql.forget, [host, port, owner, seenAt]);
  }

  /** Takes this gateway out for good, if Postgres answers. */
  async leave(): Promise<void> {
    this.#isLeft = true;
    // An entry that is on its way comes before it.
    if (!this.#isEntered || !this.#session.isUp) return;
    await this.#session.query(sql.leave, [this.owner], gatewayConstants.leaveTimeoutMs);
  }
}
