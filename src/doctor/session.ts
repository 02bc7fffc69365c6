/**
 * The connection of an examination: it reads, waits for nothing long, and changes nothing.
 */
import type pg from "pg";
import { doctorConstants } from "../../generated/ts/settings/nats.js";
import { type DatabaseAddress, type OpenSession, openSession } from "../postgres/index.js";

/**
 * Connects.
 *
 * @param signal ends it at once, also where Postgres does not answer
 * @throws as `openSession`
 */
export async function open(address: DatabaseAddress, signal: AbortSignal): Promise<OpenSession> {
  return openSession(address, {
    applicationName: "hawser doctor",
    connectTimeoutMs: doctorConstants.connectMs,
    statementTimeoutMs: doctorConstants.statementMs,
    readOnly: true,
    onClient: (opening) => {
      if (signal.aborted) close(opening);
      signal.addEventListener("abort", () => close(opening), { once: true });
    },
  });
}

/** Ends it at once, also where Postgres does not answer. */
export function close(client: pg.Client): void {
  client.connection.stream.destroy();
}
