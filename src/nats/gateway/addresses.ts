/**
 * Addresses of gateways in Postgres. A running gateway keeps its own row, and removes the rows of gateways that are
 * gone. Otherwise each new database session would first try to reach a gateway that is gone, and could reach another
 * program on its port.
 */

import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import type { limits } from "../../../generated/ts/rules/nats/server.js";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../../foundation/postgres/index.js";
import { type Logger, RareLog, Repeated } from "../../foundation/runtime/index.js";
import { type Address, formatAddress, isLoopback } from "../../jobs-and-peers/wire/index.js";
import { optionsPollMs } from "../../operating/installation/index.js";

/** Time for which a gateway that stops waits for Postgres to remove its address. */
const leaveTimeoutMs = 1_000;
/** Time limit for a machine to answer whether another gateway on it is still running. */
const staleProbeMs = 1_000;

/** Addresses of this gateway. */
export interface OwnAddress {
  /** Address that it listens on. */
  readonly listen: Address;
  /** Address at which Postgres reaches it. */
  readonly own: GatewayAddress;
  /** True if Postgres reaches it at another address than it listens on, which other gateways may share. */
  readonly isAdvertised: boolean;
  /** Time at which the TLS certificate of this gateway ends, in ms since 1970; undefined without TLS, or if it cannot be read. */
  certificateEndsAt(): number | undefined;
}

/** State of this process that other processes read, and a callback that receives the state of the others. */
export interface Placement {
  readonly natsPlace: NatsPlace | undefined;
  /** True if it could run subscribed functions. */
  readonly canLead: boolean;
  /** Receives the current gateways of other processes. Does not reject. @param owner random id of this process */
  onOthers(owner: string, others: readonly GatewayEntry[]): Promise<void>;
}

/**
 * Maintains the row of this gateway in the table in which Postgres finds gateways, and periodically removes rows of
 * gateways that are gone. Each row has an owner, so that gateways behind one address do not remove each other, and the
 * time of the owner's last update. Does nothing on a standby, which cannot be written to, and then reports no other
 * gateways.
 */
export class AddressBook {
  /** Random id of this process. */
  readonly #owner = randomUUID();
  readonly #stopping = new AbortController();
  readonly #checks = new Repeated(optionsPollMs, () =>
    this.#check(false).catch((err: unknown) => {
      this.#logger.debug({ err }, "cannot check the addresses of gateways");
    }),
  );

  readonly #session: PostgresSession;
  readonly #address: OwnAddress;
  readonly #placement: Placement;
  readonly #logger: Logger;
  readonly #rareLog: RareLog;
  #unreachedAt: number | undefined;
  /** {@link unreachedAt} at the last check. */
  #checkedUnreachedAt: number | undefined;
  #startedAt: string | undefined;
  #hasRow = false;
  #isRemoved = false;

  constructor(session: PostgresSession, address: OwnAddress, placement: Placement, logger: Logger) {
    this.#session = session;
    this.#address = address;
    this.#placement = placement;
    this.#logger = logger;
    this.#rareLog = new RareLog(logger, "hawser gateway");
  }

  /**
   * Time of the last call of an SQL function that reached no gateway of this database, in seconds since 1970 by the
   * clock of Postgres; undefined if none is known. Updated at each check, but not on a standby.
   */
  get unreachedAt(): number | undefined {
    return this.#unreachedAt;
  }

  /** Adds the row, and starts to check all rows periodically. */
  async start(): Promise<void> {
    await this.#check(true);
    this.#checks.runIn(optionsPollMs);
  }

  /** Updates the row with the current state of this process. Does not reject. */
  async update(): Promise<void> {
    await this.#upsert().catch((err: unknown) => {
      this.#logger.debug(
        { err },
        "cannot store which NATS server this process is connected to; trying again at the next check",
      );
    });
  }

  /** Stops the checks, and removes the row. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#checks.stop();
    this.#rareLog.end();
    await this.#remove().catch((err: unknown) => {
      this.#logger.warn({ err }, "cannot remove the gateway's address from the database; another gateway will");
    });
  }

  async #check(isFirst: boolean): Promise<void> {
    const { signal } = this.#stopping;
    const { listen, own, isAdvertised } = this.#address;
    // Only one gateway can listen on this address, so rows of earlier owners are outdated.
    if (isFirst && !isAdvertised && !(await this.#session.isStandby()))
      await this.#session.query(sql.removeEarlierOwners, [own.host, own.port, this.#owner]);
    const others = await this.#upsert();
    if (others === undefined || signal.aborted) return;
    // Calls from before the start of this process are not reported.
    if (!isFirst && this.#unreachedAt !== this.#checkedUnreachedAt) this.#warnOfUnreached();
    this.#checkedUnreachedAt = this.#unreachedAt;
    const refusing = new Set(await refusingOf(listen, others, signal));
    const isGone = (entry: GatewayEntry): boolean => entry.isStale || refusing.has(entry);
    for (const entry of others.filter(isGone)) {
      if (signal.aborted) return;
      const address = formatAddress(entry);
      this.#logger.info({ address }, "removed the address of a gateway that no longer answers");
      // The statement checks that its owner has not updated the row meanwhile.
      await this.#session.query(sql.removeGone, [entry.host, entry.port, entry.owner, entry.seenAt]);
    }
    const present = others.filter((entry) => !isGone(entry));
    if (isFirst) this.#warnOfOtherTls(present);
    await this.#placement.onOthers(this.#owner, present);
  }

  /** Adds or updates the row of this gateway. @returns the rows of others; undefined on a standby */
  async #upsert(): Promise<GatewayEntry[] | undefined> {
    if ((await this.#session.isStandby()) || this.#isRemoved) return undefined;
    const { host, port, sslmode, rootCertificate = null } = this.#address.own;
    const { natsPlace, canLead } = this.#placement;
    const endsAt = this.#address.certificateEndsAt();
    this.#hasRow = true;
    const rows = await this.#session.query<OwnRow & (GatewayEntry | NoEntry)>(sql.upsert, [
      ...[this.#owner, gatewayConstants.gatewayStaleMs, host, port, sslmode, rootCertificate, this.#startedAt],
      ...[natsPlace?.server, natsPlace?.serverId, canLead, endsAt === undefined ? null : new Date(endsAt)],
    ]);
    const { unreachedAt, startedAt } = rows[0]!;
    this.#unreachedAt = unreachedAt ?? undefined;
    this.#startedAt ??= startedAt;
    return rows.filter((row): row is OwnRow & GatewayEntry => row.owner !== null);
  }

  /** Removes the row for good, if Postgres answers. */
  async #remove(): Promise<void> {
    this.#isRemoved = true;
    // Queries of a session run in order, so an update that is already running precedes the removal.
    if (!this.#hasRow || !this.#session.isUp) return;
    await this.#session.query(sql.removeOwn, [this.#owner], leaveTimeoutMs);
  }

  #warnOfUnreached(): void {
    const address = formatAddress(this.#address.own);
    this.#rareLog.warn(
      "a call of an SQL function reached no gateway; Postgres must be able to reach the address that each hawser serve advertises; " +
        "hawser doctor finds out why it cannot",
      address,
      { address },
    );
  }

  #warnOfOtherTls(others: readonly GatewayEntry[]): void {
    const { sslmode, rootCertificate = null } = this.#address.own;
    const other = others.find((entry) => entry.sslmode !== sslmode || entry.rootCertificate !== rootCertificate);
    if (other === undefined) return;
    this.#logger.warn(
      { address: formatAddress(other), sslmode: other.sslmode, rootCertificate: other.rootCertificate },
      "another gateway of this database has other TLS settings; Postgres tries only gateways with the settings of the " +
        "newest one, so neither replaces the other; give all gateways the same settings",
    );
  }
}

/** Address and TLS settings with which Postgres connects to a gateway. */
export interface GatewayAddress {
  readonly host: string;
  readonly port: number;
  readonly sslmode: (typeof limits.Gateway.sslmode.values)[number];
  /** Path on the machine of Postgres. */
  readonly rootCertificate: string | undefined;
}

/** NATS server that a process is connected to. */
export interface NatsPlace {
  /** Its `host:port` in the options. */
  readonly server: string;
  /** Id that the NATS server reports. */
  readonly serverId: string | undefined;
}

/** Row of another gateway. */
export interface GatewayEntry {
  readonly host: string;
  readonly port: number;
  readonly sslmode: string;
  readonly rootCertificate: string | null;
  readonly owner: string;
  /** NATS server that its process is connected to. */
  readonly natsServer: string | null;
  /** True if its process could run subscribed functions. */
  readonly canLead: boolean;
  /** Time of its last update, as text from Postgres. */
  readonly seenAt: string;
  /** True if its last update is too long ago for a running gateway. */
  readonly isStale: boolean;
}

/** Columns of the own row, after its update. */
interface OwnRow {
  readonly startedAt: string;
  readonly unreachedAt: number | null;
}

/** The one row of an update, if there are no other gateways. */
interface NoEntry {
  readonly owner: null;
}

// Rows that an operator has inserted have no owner, and are left alone.
const othersSql = `SELECT g.host, g.port, g.sslmode, g.root_certificate AS "rootCertificate", g.owner, g.nats_server AS "natsServer",
      g.can_lead AS "canLead", g.seen_at::text AS "seenAt", g.seen_at < now() - $2 * interval '1 ms' AS "isStale"
    FROM hawser_bridge_data.gateways AS g WHERE g.owner NOT IN ('', $1)`;

const sql = {
  // The address and start time of an existing row are kept.
  upsert: `WITH own AS (
      INSERT INTO hawser_bridge_data.gateways (owner, host, port, sslmode, root_certificate, started_at, seen_at, nats_server, nats_server_id, can_lead,
                                              certificate_ends_at)
      VALUES ($1, $3, $4, $5, $6, coalesce($7::timestamptz, now()), now(), $8, $9, $10, $11)
      ON CONFLICT (host, port, owner) DO UPDATE
        SET seen_at = excluded.seen_at, nats_server = excluded.nats_server, nats_server_id = excluded.nats_server_id,
            can_lead = excluded.can_lead, certificate_ends_at = excluded.certificate_ends_at
      RETURNING started_at::text AS "startedAt", extract(epoch FROM hawser.gateway_unreached_at())::float8 AS "unreachedAt"
    )
    SELECT * FROM own LEFT JOIN (${othersSql}) AS others ON true`,
  removeEarlierOwners:
    "DELETE FROM hawser_bridge_data.gateways AS g WHERE g.host = $1 AND g.port = $2 AND g.owner NOT IN ('', $3)",
  removeGone: `DELETE FROM hawser_bridge_data.gateways AS g
    WHERE g.host = $1 AND g.port = $2 AND g.owner = $3 AND g.seen_at = $4`,
  removeOwn: "DELETE FROM hawser_bridge_data.gateways AS g WHERE g.owner = $1",
} as const;

/** NATS servers of all processes of the database, one entry per process. */
export async function natsServersInUse(session: PostgresSession): Promise<string[]> {
  const all = await session.query<GatewayEntry>(othersSql, ["", gatewayConstants.gatewayStaleMs]);
  return all.flatMap(({ isStale, natsServer }) => (isStale ? [] : (natsServer ?? [])));
}

/**
 * Gateways whose address refuses connections: they were killed, and could not remove their rows. Only loopback
 * addresses are tried, and only by a gateway that itself listens on one: this proves that it is on the machine of
 * Postgres. A refusal at another address says nothing about the network between Postgres and the gateway.
 *
 * @param listen address that this gateway listens on
 */
export async function refusingOf<T extends Address>(
  listen: Address,
  others: readonly T[],
  signal: AbortSignal,
): Promise<T[]> {
  if (!isLoopback(listen.host)) return [];
  const tried = others.filter(({ host }) => isLoopback(host));
  const refused = await Promise.all(tried.map((place) => refuses(place, signal)));
  return signal.aborted ? [] : tried.filter((_, position) => refused[position]);
}

function refuses({ host, port }: Address, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(false);
    const socket = connect({ host, port, timeout: staleProbeMs });
    const end = (isRefused: boolean): void => {
      signal.removeEventListener("abort", giveUp);
      socket.destroy();
      resolve(isRefused);
    };
    const giveUp = (): void => end(false);
    // The socket option `signal` is not used: it would keep its listener as long as the signal exists.
    signal.addEventListener("abort", giveUp);
    socket.on("connect", () => end(false));
    socket.on("timeout", () => end(false));
    socket.on("error", ({ code }: NodeJS.ErrnoException) => end(code === "ECONNREFUSED"));
  });
}
