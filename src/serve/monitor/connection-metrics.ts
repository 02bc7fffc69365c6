/**
 * Metrics of the connections to Postgres and NATS.
 */
import type { Registry } from "prom-client";
import { type ConnectionCounters, natsClients, type ServeCounters } from "./counters.js";
import { readCounter, readGauge, readNumber, readTotal, type Sample } from "./read-metrics.js";

/** Defines them. */
export function defineConnectionMetrics(registry: Registry, counters: ServeCounters): void {
  const ofEach = (numberOf: (connection: ConnectionCounters) => number): Sample<"client">[] =>
    natsClients.flatMap((client) => {
      const connection = counters.nats[client];
      return connection === undefined ? [] : [[{ client }, numberOf(connection)]];
    });

  readGauge(
    registry,
    {
      name: "hawser_nats_up",
      help: "Whether the connection to NATS is there: 1 or 0. Each client that is in use has one of its own.",
      labels: ["client"],
    },
    () => ofEach(({ isUp }) => Number(isUp)),
  );
  readCounter(
    registry,
    {
      name: "hawser_nats_reconnects_total",
      help: "How often the connection to NATS was made again.",
      labels: ["client"],
    },
    () => ofEach(({ reconnects }) => reconnects),
  );
  readNumber(registry, "hawser_postgres_up", "Whether the connection to Postgres is there: 1 or 0.", () =>
    Number(counters.postgres.isUp),
  );
  readTotal(
    registry,
    "hawser_postgres_reconnects_total",
    "How often the connection to Postgres was made again.",
    () => counters.postgres.reconnects,
  );
}
