/**
 * What Postgres knows of gateways, kept right while this one runs: it is entered, and those that are gone are not.
 * Otherwise each new database session would try them, and a program that has taken the port of one would be asked.
 */
import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import type { PostgresSession } from "../postgres/index.js";
import { type Logger, RareLog, Repeated } from "../runtime/index.js";
import { type Address, formatAddress, isLoopback } from "../wire/index.js";

const { optionsPollMs } = gatewayConstants;

/** Where this gateway is. */
export interface OwnAddress {
  /** Where it listens. */
  readonly listen: Address;
  /** Where Postgres reaches it. */
  readonly own: GatewayAddress;
  /** Postgres reaches it at another address than it listens at, which others may have, too. */
  readonly isAdvertised: boolean;
}

/** Where this process stands at NATS, whether it could lead, and what takes note of both for others. */
export interface Placement {
  readonly standing: GatewayStanding | undefined;
  /** It could run subscribed functions. */
  readonly canLead: boolean;
  /** Does not reject. @param owner the name of this process */
  heed(owner: string, others: readonly GatewayEntry[]): Promise<void>;
}

/**
 * Enters this gateway into the table in which Postgres finds its gateways, and takes out those that are gone, now and from time
 * to time. Each row has an owner, so that several behind one address do not take each other out, and says when that one was last
 * there. On a standby, where nothing can be written, it does nothing and knows of no other.
 */
export class AddressBook {
  /** A random name of this process. */
  readonly #owner = randomUUID();
  readonly #stopping = new AbortController();
  readonly #checks = new Repeated(optionsPollMs, () =>
    this.#check(false).catch((err: unknown) => {
      this.#logger.debug({ err }, "the addresses of gateways could not be checked");
    }),
  );

  readonly #session: PostgresSession;
  readonly #address: OwnAddress;
  readonly #placement: Placement;
  readonly #logger: Logger;
  readonly #rare: RareLog;
  #unreachedAt: number | undefined;
  /** {@link unreachedAt} as of the last check. */
  #knownUnreachedAt: number | undefined;
  #startedAt: string | undefined;
  #isEntered = false;
  #isLeft = false;

  constructor(session: PostgresSession, address: OwnAddress, placement: Placement, logger: Logger) {
    this.#session = session;
    this.#address = address;
    this.#placement = placement;
    this.#logger = logger;
    this.#rare = new RareLog(logger, "hawser gateway");
  }

  /**
   * Time of the last call of an SQL function that reached no gateway of this database, in seconds since 1970 by the clock of
   * Postgres; undefined: none is known. Read from time to time, and not on a standby.
   */
  get unreachedAt(): number | undefined {
    return this.#unreachedAt;
  }

  /** Enters the address, and checks the others now and from time to time. */
  async open(): Promise<void> {
    await this.#check(true);
    this.#checks.runIn(optionsPollMs);
  }

  /** Says now where this process stands. Does not reject. */
  async tell(): Promise<void> {
    await this.#enter().catch((err: unknown) => {
      this.#logger.debug({ err }, "the database was not told which NATS server this process stands on, and is later");
    });
  }

  /** Ends the checks, and takes the address out. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#checks.stop();
    this.#rare.end();
    await this.#leave().catch((err: unknown) => {
      this.#logger.warn({ err }, "the gateway's address could not be taken out of the database; other gateways will");
    });
  }

  async #check(isFirst: boolean): Promise<void> {
    const { signal } = this.#stopping;
    const { listen, own, isAdvertised } = this.#address;
    if (!(await this.#enter()) || signal.aborted) return;
    // What was before this process, its log does not tell.
    if (!isFirst && this.#unreachedAt !== this.#knownUnreachedAt) this.#warnOfUnreached();
    this.#knownUnreachedAt = this.#unreachedAt;
    // Only one can have the address of this gateway: the one that had it before goes.
    if (isFirst && !isAdvertised) await this.#session.query(sql.succeed, [own.host, own.port, this.#owner]);
    const others = await entriesBeside(this.#session, this.#owner);
    const refusing = new Set(await refusingAmong(listen, others, signal));
    const [gone, present] = partition(others, (entry) => entry.isStale || refusing.has(entry));
    for (const entry of gone) {
      if (signal.aborted) return;
      const address = formatAddress(entry);
      this.#logger.info({ address }, "a gateway that does not answer any more is forgotten");
      // Unless it was there meanwhile.
      await this.#session.query(sql.forget, [entry.host, entry.port, entry.owner, entry.seenAt]);
    }
    if (isFirst) this.#warnOfOtherTls(present);
    await this.#placement.heed(this.#owner, present);
  }

  /** Enters this gateway, or says that it is there still, where it stands at NATS, and whether it could lead. @returns whether it is entered: not on a standby */
  async #enter(): Promise<boolean> {
    if ((await this.#session.isStandby()) || this.#isLeft) return false;
    const { host, port, sslmode, rootCertificate = null } = this.#address.own;
    const { standing, canLead } = this.#placement;
    this.#isEntered = true;
    const [row] = await this.#session.query<{ startedAt: string; unreachedAt: number | null }>(sql.enter, [
      ...[host, port, this.#owner, sslmode, rootCertificate, this.#startedAt],
      ...[standing?.server, standing?.serverId, canLead],
    ]);
    this.#unreachedAt = row!.unreachedAt ?? undefined;
    this.#startedAt ??= row!.startedAt;
    return true;
  }

  /** Takes this gateway out for good, if Postgres answers. */
  async #leave(): Promise<void> {
    this.#isLeft = true;
    // An entry that is on its way comes before it.
    if (!this.#isEntered || !this.#session.isUp) return;
    await this.#session.query(sql.leave, [this.#owner], gatewayConstants.leaveTimeoutMs);
  }

  #warnOfUnreached(): void {
    const address = formatAddress(this.#address.own);
    this.#rare.warn(
      "a call of an SQL function reached no gateway: Postgres has to reach the address that each hawser serve advertises; " +
        "hawser doctor says why it does not",
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
      "another gateway of this database has other TLS settings: Postgres tries only those that have the settings of the " +
        "youngest, so neither takes over for the other; give all of them the same",
    );
  }
}

function partition<T>(all: readonly T[], belongs: (one: T) => boolean): [T[], T[]] {
  return [all.filter(belongs), all.filter((one) => !belongs(one))];
}

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
  /** Its process could run subscribed functions. */
  readonly canLead: boolean;
  /** As Postgres writes it: tells whether its gateway was there since. */
  readonly seenAt: string;
  /** Its gateway was not there for longer than one that runs ever is. */
  readonly isStale: boolean;
}

const sql = {
  // What its gateway has entered stays as it is, or comes back as it was.
  enter: `INSERT INTO hawser.gateways (host, port, owner, sslmode, root_certificate, started_at, seen_at, nats_server, nats_server_id, can_lead)
    VALUES ($1, $2, $3, $4, $5, coalesce($6::timestamptz, now()), now(), $7, $8, $9)
    ON CONFLICT (host, port, owner) DO UPDATE
      SET seen_at = excluded.seen_at, nats_server = excluded.nats_server, nats_server_id = excluded.nats_server_id,
          can_lead = excluded.can_lead
    RETURNING started_at::text AS "startedAt", extract(epoch FROM hawser.gateway_unreached_at())::float8 AS "unreachedAt"`,
  succeed: "DELETE FROM hawser.gateways AS g WHERE g.host = $1 AND g.port = $2 AND g.owner NOT IN ('', $3)",
  // Those that an operator entered by hand are left alone.
  others: `SELECT g.host, g.port, g.sslmode, g.root_certificate AS "rootCertificate", g.owner, g.nats_server AS "natsServer",
      g.can_lead AS "canLead", g.seen_at::text AS "seenAt", g.seen_at < now() - $2 * interval '1 ms' AS "isStale"
    FROM hawser.gateways AS g WHERE g.owner NOT IN ('', $1)`,
  forget: `DELETE FROM hawser.gateways AS g
    WHERE g.host = $1 AND g.port = $2 AND g.owner = $3 AND g.seen_at = $4`,
  leave: "DELETE FROM hawser.gateways AS g WHERE g.owner = $1",
} as const;

/** The NATS servers that processes of the database stand on now, each as often as they do. */
export async function standings(session: PostgresSession): Promise<string[]> {
  const others = await entriesBeside(session, "");
  return others.flatMap(({ isStale, natsServer }) => (isStale ? [] : (natsServer ?? [])));
}

/** The gateways of other processes. */
function entriesBeside(session: PostgresSession, owner: string): Promise<GatewayEntry[]> {
  return session.query<GatewayEntry>(sql.others, [owner, gatewayConstants.gatewayStaleMs]);
}

interface Place {
  readonly host: string;
  readonly port: number;
}

/**
 * Which of the addresses refuse a connection: their gateways were killed, and could not take their own away. Only loopback
 * addresses are tried, and only by a gateway that listens at one itself: they mean Postgres's machine, and that this gateway
 * is on it. A refusal elsewhere says nothing about the way from Postgres.
 *
 * @param listen where we listen ourselves
 */
export async function refusingAmong<T extends Place>(
  listen: Place,
  others: readonly T[],
  signal: AbortSignal,
): Promise<T[]> {
  if (!isLoopback(listen.host)) return [];
  const tried = others.filter(({ host }) => isLoopback(host));
  const refused = await Promise.all(tried.map((place) => refuses(place, signal)));
  return signal.aborted ? [] : tried.filter((_, position) => refused[position]);
}

function refuses({ host, port }: Place, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve(false);
    const socket = connect({ host, port, timeout: gatewayConstants.staleProbeMs });
    const end = (isRefused: boolean): void => {
      signal.removeEventListener("abort", giveUp);
      socket.destroy();
      resolve(isRefused);
    };
    const giveUp = (): void => end(false);
    // A listener of our own: that of an option `signal` would stay for as long as the signal does.
    signal.addEventListener("abort", giveUp);
    socket.on("connect", () => end(false));
    socket.on("timeout", () => end(false));
    socket.on("error", ({ code }: NodeJS.ErrnoException) => end(code === "ECONNREFUSED"));
  });
}
