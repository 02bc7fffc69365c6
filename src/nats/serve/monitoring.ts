/** Monitoring of `hawser serve`: its parts as metrics and health checks. */

import type { HawserError } from "../../foundation/errors/index.js";
import { type CheckState, metricExporter, Reachability } from "../../foundation/monitor/index.js";
import { isServerError, isTransient, type PostgresSession } from "../../foundation/postgres/index.js";
import { type Logger, version } from "../../foundation/runtime/index.js";
import type { TlsCredentials } from "../../foundation/tls/index.js";
import { storeFailure } from "../../jobs-and-peers/store/index.js";
import { type Address, parseAddress } from "../../jobs-and-peers/wire/index.js";
import type { Bridge, BridgeStats } from "../bridge/index.js";
import type { NatsConnector } from "../connections/index.js";
import type { AddressBook, Gateway } from "../gateway/index.js";
import {
  type ConnectionCounters,
  Monitor,
  type NatsClient,
  natsClients,
  type ServeCounters,
  ServeMetrics,
} from "./monitor/index.js";
import type { StoredCounts } from "./periodic-counts.js";
import type { ServerWatch } from "./server-watch.js";

/** Time without progress of the position, while messages wait, after which the check `outbox` of /readyz fails. */
const stuckMs = 30_000;

/** Postgres counts as away when it has not answered for this long. */
const postgresSilenceMs = 15_000;

/** Parts of a running `hawser serve`; a part that does not exist yet is absent. */
export interface MonitoredParts {
  gateway?: Gateway;
  bridge?: Bridge;
  watch?: ServerWatch;
  addresses?: AddressBook;
  /** Present while metrics are served. */
  stored?: StoredCounts;
}

function sessionsOf({
  watch,
  bridge,
}: MonitoredParts): readonly Pick<PostgresSession, "applicationName" | "attempts">[] {
  return [...(watch === undefined ? [] : [watch.session]), ...(bridge?.sessions ?? [])];
}

/** Connection state of one NATS client, with its reconnects. */
class Connections implements ConnectionCounters {
  #count = 0;
  #since: Date = new Date();

  readonly #connector: NatsConnector;

  constructor(connector: NatsConnector) {
    this.#connector = connector;
    if (connector.connection !== undefined) this.#count = 1;
    connector.on("connected", () => {
      this.#count += 1;
      this.#since = new Date();
    });
    connector.on("lost", () => {
      this.#since = new Date();
    });
  }

  get isUp(): boolean {
    return this.#connector.connection !== undefined;
  }

  get reconnects(): number {
    return Math.max(0, this.#count - 1);
  }

  get state(): CheckState {
    const { failure } = this.#connector;
    const since = this.#since;
    return this.isUp
      ? { ok: true, since }
      : {
          ok: false,
          since,
          detail: failure?.message ?? "no server is defined, or the connection is being established",
        };
  }
}

/** State of Postgres, from opened sessions and answered queries. */
class Postgres implements ConnectionCounters {
  readonly #reachability = new Reachability(postgresSilenceMs);
  readonly #parts: MonitoredParts;
  /** Reason of the last failed query. */
  #problem: HawserError | undefined;
  reconnects = 0;

  constructor(parts: MonitoredParts) {
    this.#parts = parts;
  }

  get isUp(): boolean {
    const isOpen = sessionsOf(this.#parts).every(({ attempts }) => attempts.failure(0) === undefined);
    return isOpen && this.#problem === undefined;
  }

  get state(): CheckState {
    for (const { attempts, applicationName } of sessionsOf(this.#parts)) {
      const failure = attempts.failure(postgresSilenceMs);
      if (failure === undefined) continue;
      const { message } = storeFailure(`open the session "${applicationName}"`, failure.error);
      return { ok: false, since: failure.since, detail: message };
    }
    const state = this.#reachability.state;
    const problem = this.#problem;
    if (problem === undefined) return state;
    // An answer that will be the same next time, as from a server that takes no writes.
    if (isServerError(problem.cause) && !isTransient(problem.cause)) return { ok: false, detail: problem.message };
    return state.ok ? state : { ...state, detail: `${state.detail}: ${problem.message}` };
  }

  asked(problem: HawserError | undefined): void {
    if (problem === undefined) this.#reachability.answered();
    if (problem === undefined && this.#problem !== undefined) this.reconnects += 1;
    this.#problem = problem;
  }
}

/** Health of the outbox: whether the position moves while messages wait. Only the leader has a position. */
export function outboxState(outbox: Pick<BridgeStats["outbox"], "positionAt"> | undefined): CheckState {
  const ageMs = outbox?.positionAt === undefined ? 0 : performance.now() - outbox.positionAt;
  if (ageMs < stuckMs) return { ok: true };
  const detail = `messages of the outbox wait, and its position has not moved for ${Math.floor(ageMs / 1_000)} s`;
  return { ok: false, detail };
}

/** Serves and exports metrics and health of the parts, from the start of the process on. */
export class Monitoring {
  readonly metrics: ServeMetrics;
  readonly #parts: MonitoredParts;
  readonly #tls: TlsCredentials | undefined;
  readonly #logger: Logger;
  readonly #postgres: Postgres;
  readonly #connectors = new Map<NatsClient, Connections>();
  #monitor: Monitor | undefined;
  readonly #endExport: (() => Promise<void>) | undefined;

  /** @param database label of all metrics @param tls certificate of the gateway */
  constructor(parts: MonitoredParts, database: string, tls: TlsCredentials | undefined, logger: Logger) {
    this.#parts = parts;
    this.#tls = tls;
    this.#logger = logger;
    this.#postgres = new Postgres(parts);
    this.metrics = new ServeMetrics({ version, database, counters: () => this.#counters() });
    this.#endExport = metricExporter?.add(this.metrics);
  }

  /** Address of the monitoring port; undefined if it is not open. */
  get address(): Address | undefined {
    return this.#monitor?.address;
  }

  /** Opens the monitoring port. @throws HawserError `bind_failed` */
  async listen(address: string, signal: AbortSignal | undefined): Promise<void> {
    const health = [
      { name: "gateway", affects: "health" as const, state: () => ({ ok: this.#parts.gateway?.isListening === true }) },
      { name: "postgres", affects: "readiness" as const, state: () => this.#postgres.state },
      ...natsClients.map((client) => ({
        name: `nats_${client}`,
        affects: "readiness" as const,
        state: () => this.#connectors.get(client)?.state ?? { ok: false, detail: "it is being started" },
      })),
      { name: "outbox", affects: "readiness" as const, state: () => outboxState(this.#parts.bridge?.stats.outbox) },
    ];
    const metrics = () => this.metrics.readAll();
    this.#monitor = await Monitor.start(
      { listen: parseAddress(address), metrics, health, logger: this.#logger },
      signal,
    );
    this.#logger.info({ address: this.#monitor.address }, "serving metrics and health");
  }

  /** Records a query to Postgres. @param problem reason of a failed query; undefined after an answer */
  asked(problem: HawserError | undefined): void {
    this.#postgres.asked(problem);
  }

  /** Adds the NATS connections of all parts. Called once, after all parts were started. */
  follow(): void {
    const { gateway, bridge } = this.#parts;
    const connectors = Object.entries({ gateway: gateway?.connector, ...bridge?.connectors });
    for (const [client, connector] of connectors)
      if (connector !== undefined) this.#connectors.set(client as NatsClient, new Connections(connector));
  }

  async stop(): Promise<void> {
    await this.#monitor?.stop();
    await this.#endExport?.();
    this.metrics.close();
  }

  #counters(): ServeCounters {
    const { gateway, addresses, bridge, stored } = this.#parts;
    return {
      gateway: gateway && {
        sessions: gateway.sessionCount,
        unreachedAt: addresses?.unreachedAt,
        certificateEndsAt: this.#tls?.current.validUntil,
      },
      postgres: this.#postgres,
      nats: Object.fromEntries(this.#connectors),
      bridge: bridge?.stats,
      stored: stored?.counters,
    };
  }
}
