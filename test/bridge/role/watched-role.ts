/**
 * Watching the role of a Postgres, for tests that run side by side.
 */
import type { TestContext } from "vitest";
import { type PostgresRole, RoleWatch, type ServerAddress } from "../../../src/bridge/role/index.js";
import { keptLog } from "./log.js";

interface Told {
  readonly role: PostgresRole;
  readonly address: ServerAddress | undefined;
  /** By `performance.now()`. */
  readonly at: number;
}

/** Watches until the test has ended, and keeps what is told. */
export async function watchRole(
  { onTestFinished }: TestContext,
  databaseUrl: string,
  onRole: () => void = () => undefined,
) {
  const told: Told[] = [];
  const log = keptLog();
  const watch = new RoleWatch({
    databaseUrl,
    logger: log.logger,
    onRole: (role, address) => {
      told.push({ role, address, at: performance.now() });
      onRole();
    },
  });
  onTestFinished(() => watch.stop());
  await watch.start();
  return { watch, told, log, roles: () => told.map(({ role }) => role) };
}
