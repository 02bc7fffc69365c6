/**
 * A server in a process of its own, whose memory can be measured. Started with --expose-gc and its options as JSON; ends
 * when its parent goes.
 */
import { type Answer, PostgresServer } from "../../../src/nats/gateway/protocol/index.js";
import { testOptions, textOf } from "./test-server.js";

/** Report that the server sends when it listens, and on request. */
export interface HostileReport {
  readonly port: number;
  /** Memory in use after a collection: heap and what lies outside it. */
  readonly bytes: number;
  /** Memory of the process as the system sees it. */
  readonly residentBytes: number;
  /** Resources that keep the event loop busy: sockets, timers. */
  readonly resources: readonly string[];
  readonly sessions: number;
  /** Number of sessions that have ended since the start. */
  readonly sessionsEnded: number;
  readonly errorsLogged: readonly string[];
}

const collect = (globalThis as { gc?: () => void }).gc;
if (collect === undefined || process.send === undefined) throw new Error("start me from a test");

let sessionsEnded = 0;
const errorsLogged: string[] = [];
const ignore = (): void => {};
const server = await PostgresServer.listen(
  testOptions({
    ...JSON.parse(process.argv[2] ?? "{}"),
    answer: (query): Answer => {
      const [, digits] = /^bytes (\d+)$/.exec(query.length < 30 ? textOf(query) : "") ?? [];
      return { kind: "row", value: digits === undefined ? null : "x".repeat(Number(digits)) };
    },
    onClientEnd: () => {
      sessionsEnded += 1;
    },
    logger: { debug: ignore, info: ignore, warn: ignore, error: (_details, message) => errorsLogged.push(message) },
  }),
);

function report(): void {
  // What one collection finds to be garbage may be swept only by the next.
  collect?.();
  collect?.();
  const { heapUsed, external, rss } = process.memoryUsage();
  const answer: HostileReport = {
    port: server.address.port,
    bytes: heapUsed + external,
    residentBytes: rss,
    resources: process.getActiveResourcesInfo(),
    sessions: server.sessionCount,
    sessionsEnded,
    errorsLogged,
  };
  process.send?.(answer);
}

process.on("message", report);
process.on("disconnect", () => process.exit(0));
report();
