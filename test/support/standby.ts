/**
 * A primary and a hot standby that streams from it, both of a test's own.
 *
 * The standby begins as a copy of the primary's data, made while that one is stopped.
 */
import { execFileSync } from "node:child_process";
import { appendFileSync, chownSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { serverAccount } from "../../src/development/dev/server-process.js";
import { type OwnPostgres, ownPostgres } from "../faults/support/own-postgres.js";
import { eventually } from "./eventually.js";
import { onServer, rowsOf } from "./on-server.js";

/** Two servers. Disposing stops both and removes their data; that also happens if this process dies. */
export interface PrimaryAndStandby extends AsyncDisposable {
  /** Its URL connects to the database `postgres` as superuser, as that of the standby does. */
  readonly primary: OwnPostgres;
  /** Only reads, until it is promoted. */
  readonly standby: OwnPostgres;
  /**
   * As a planned switchover begins: the primary ends in order, with everything passed on, and the standby is promoted.
   * Resolves when that one takes writes; it is the primary from then on.
   *
   * @param downMs how long there is no primary
   */
  switchOver(downMs?: number): Promise<void>;
  /**
   * After {@link switchOver}: the server that was the primary starts again, as the standby. Resolves when it streams, and
   * has all that was committed meanwhile.
   */
  rejoin(): Promise<void>;
  /** The standby receives nothing more: what is committed on the primary from now on, it lacks. */
  cutOff(): Promise<void>;
  /** Resolves when the standby shows what had been committed on the primary at the time of the call. */
  caughtUp(): Promise<void>;
  /**
   * After {@link cutOff}: the primary is killed, and the standby, which lacks what was committed since, is promoted. Resolves when
   * that one takes writes; it is the primary from then on.
   */
  failOver(): Promise<void>;
  /**
   * After {@link failOver}: the primary stops in order, the other server gets a copy of its data, and both start. Resolves when that
   * one streams.
   */
  renew(): Promise<void>;
  /** Makes the standby a primary of its own; resolves when it takes writes. The old primary runs on unless it is killed. */
  promote(): Promise<void>;
}

/** Starts both; the standby answers, and streams. */
export async function startPrimaryAndStandby(): Promise<PrimaryAndStandby> {
  const primary = await ownPostgres();
  let standby: OwnPostgres | undefined;
  try {
    await primary.kill("SIGINT");
    standby = await ownPostgres({ prepare: (dataDirectory) => makeStandby(primary, dataDirectory) });
    await primary.start();
    await streams(primary);
    return assemble(primary, standby);
  } catch (error) {
    await standby?.[Symbol.asyncDispose]();
    await primary[Symbol.asyncDispose]();
    throw error;
  }
}

async function streams(primary: OwnPostgres): Promise<void> {
  await eventually("the standby streams", async () => {
    return (await rowsOf(primary.url, "SELECT FROM pg_stat_replication WHERE state = 'streaming'")).length === 1;
  });
}

/** Copies the data of the primary, which is stopped, and makes the copy follow it. */
function makeStandby(primary: OwnPostgres, dataDirectory: string): () => void {
  // Not node's cp: that one would make the copy ours.
  execFileSync("cp", ["-Rp", primary.dataDirectory, dataDirectory]);
  follow(primary, dataDirectory);
  return () => undefined;
}

/** Makes the server of a data directory, which is stopped, a standby of the primary. */
function follow(primary: OwnPostgres, dataDirectory: string): void {
  const { hostname, port, username, password } = new URL(primary.url);
  const settings = [
    `primary_conninfo = 'host=${hostname} port=${port} user=${username} password=${password} application_name=standby'`,
    // Not the default of 5 s: the primary starts a moment after the standby.
    "wal_retrieve_retry_interval = '50ms'",
  ];
  appendFileSync(join(dataDirectory, "postgresql.auto.conf"), `${settings.join("\n")}\n`);
  const signal = join(dataDirectory, "standby.signal");
  writeFileSync(signal, "");
  const account = serverAccount();
  if (account !== undefined) chownSync(signal, account.uid, account.gid);
}

function assemble(first: OwnPostgres, second: OwnPostgres): PrimaryAndStandby {
  let [primary, standby] = [first, second];
  const promote = async (): Promise<void> => {
    const [row] = await rowsOf(standby.url, "SELECT pg_promote() AS promoted");
    if (row!["promoted"] !== true) throw new Error("The standby was not promoted within 60 s.");
  };
  const caughtUp = async (): Promise<void> => {
    const [row] = await rowsOf(primary.url, "SELECT pg_current_wal_flush_lsn()::text AS lsn");
    const replayed = `SELECT pg_last_wal_replay_lsn() >= '${row!["lsn"]}' AS replayed`;
    await eventually("the standby has replayed what the primary has committed", async () => {
      return (await rowsOf(standby.url, replayed))[0]!["replayed"] === true;
    });
  };
  return {
    get primary() {
      return primary;
    },
    get standby() {
      return standby;
    },
    caughtUp,
    promote,
    async cutOff() {
      await onServer(standby.url, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()");
      await eventually("the standby receives nothing", async () => {
        return (await rowsOf(standby.url, "SELECT FROM pg_stat_wal_receiver")).length === 0;
      });
    },
    async switchOver(downMs = 0) {
      await primary.kill("SIGINT");
      await delay(downMs);
      await promote();
      [primary, standby] = [standby, primary];
    },
    async failOver() {
      await primary.kill("SIGKILL");
      await promote();
      [primary, standby] = [standby, primary];
    },
    async renew() {
      await primary.kill("SIGINT");
      rmSync(standby.dataDirectory, { recursive: true });
      makeStandby(primary, standby.dataDirectory);
      await standby.start();
      await primary.start();
      await streams(primary);
    },
    async rejoin() {
      follow(primary, standby.dataDirectory);
      await standby.start();
      await streams(primary);
      // It streams already while it still reads an older timeline.
      await caughtUp();
    },
    [Symbol.asyncDispose]: async () => {
      await second[Symbol.asyncDispose]();
      await first[Symbol.asyncDispose]();
    },
  };
}
