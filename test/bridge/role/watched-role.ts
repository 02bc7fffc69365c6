/**
 * Watching the role of a Postgres, for tests that run side by side.
 */
import type { TestContext } from "vitest";
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { DatabaseAddress, PostgresSession } from "../../../src/foundation/postgres/index.js";
import type { Logger } from "../../../src/foundation/runtime/index.js";
import { type PostgresRole, RoleWatch, type ServerAddress } from "../../../src/nats/bridge/role/index.js";
import { keptLog } from "./log.js";

interface Told {
  readonly role: PostgresRole;
  readonly address: ServerAddress | undefined;
  /** By `performance.now()`. */
  readonly at: number;
}

/** A session as that of leadership. */
export function watchedSession(databaseUrl: string, logger: Logger, onDown: () => void): PostgresSession {
  const limitMs = 2 * bridgeConstants.leaderHeartbeatMs;
  return new PostgresSession({
    address: DatabaseAddress.of(databaseUrl),
    logger,
    applicationName: "hawser serve: lead",
    connectTimeoutMs: limitMs,
    queryTimeoutMs: limitMs,
    onDown,
  });
}

/** Watches until the test has ended, and keeps what is told. */
export async function watchRole(
  { onTestFinished }: TestContext,
  databaseUrl: string,
  onRole: () => void = () => undefined,
) {
  const told: Told[] = [];
  const log = keptLog();
  const session = watchedSession(databaseUrl, log.logger, () => watch.sessionLost());
  const watch = new RoleWatch({
    session,
    logger: log.logger,
    onRole: (role, address) => {
      told.push({ role, address, at: performance.now() });
      onRole();
    },
  });
  const stop = async () => {
    watch.stop();
    await session.close();
  };
  onTestFinished(stop);
  await watch.run();
  return { watch, stop, told, log, roles: () => told.map(({ role }) => role) };
}
