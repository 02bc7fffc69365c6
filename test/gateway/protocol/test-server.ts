/**
 * A server for tests, with limits that tests reach.
 */
import { onTestFinished } from "vitest";
import type { Logger } from "../../../src/foundation/runtime/index.js";
import {
  type Answer,
  type GatewayClient,
  PostgresServer,
  type PostgresServerOptions,
} from "../../../src/nats/gateway/protocol/index.js";

export const user = "hawser";
export const database = "shop";
export const password = "correct horse ~ battery'staple\\";

/** Log lines. */
export interface LogLine {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly details: object;
  readonly message: string;
}

/** A logger that keeps what it is told. */
export class KeepingLogger implements Logger {
  readonly lines: LogLine[] = [];

  debug(details: object, message: string): void {
    this.lines.push({ level: "debug", details, message });
  }

  info(details: object, message: string): void {
    this.lines.push({ level: "info", details, message });
  }

  warn(details: object, message: string): void {
    this.lines.push({ level: "warn", details, message });
  }

  error(details: object, message: string): void {
    this.lines.push({ level: "error", details, message });
  }
}

/** Options with defaults for tests; `answer` gives the query back. */
export function testOptions(changes: Partial<PostgresServerOptions> = {}): PostgresServerOptions {
  return {
    host: "127.0.0.1",
    port: 0,
    user,
    database,
    password,
    maxSessions: 500,
    startupTimeoutMs: 10_000,
    maxStartupBytes: 10_000,
    maxRequestBytes: 256 * 1024 * 1024,
    logger: new KeepingLogger(),
    answer: echo,
    ...changes,
  };
}

/** Answers with the query itself. */
export function echo(query: Uint8Array, _session: GatewayClient): Answer {
  return { kind: "row", value: textOf(query) };
}

/** The query as text. */
export function textOf(query: Uint8Array): string {
  return Buffer.from(query.buffer, query.byteOffset, query.byteLength).toString();
}

/** Starts a server that is stopped when the test has ended. */
export async function startServer(changes: Partial<PostgresServerOptions> = {}): Promise<PostgresServer> {
  const server = await PostgresServer.listen(testOptions(changes));
  onTestFinished(() => server.stop({ deadlineMs: 0 }));
  return server;
}

/** Connection string for libpq. */
export function connectionString(
  server: PostgresServer,
  changes: Readonly<Record<string, string | number>> = {},
): string {
  const { host, port } = server.address;
  const parameters = { host, port, user, dbname: database, password, connect_timeout: 20, ...changes };
  const quoted = (value: string | number): string => `'${String(value).replace(/['\\]/g, "\\$&")}'`;
  return Object.entries(parameters)
    .map(([name, value]) => `${name}=${quoted(value)}`)
    .join(" ");
}
