/**
 * A Postgres of a test's own, to be killed and started again on the same data and port.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { appendFileSync, rmSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { startPostgres } from "../../../src/development/dev/postgres/embedded-postgres.js";
import { createTemporary, giveUp } from "../../../src/development/dev/run-directory.js";
import { ServerProcess, serverAccount } from "../../../src/development/dev/server-process.js";
import { guardDirectory } from "../../../src/development/dev/sweep.js";
import { initdbArguments, prepareCluster } from "../../support/cluster.js";
import { systemProgram } from "./system-program.js";

/** Settings of a Postgres server of one test. */
export interface OwnPostgresOptions {
  /** A further address on which it listens, and lets in who comes from there with the password. */
  readonly network?: { readonly address: string; readonly prefixBits: number } | undefined;
  /** Default 100. */
  readonly maxConnections?: number | undefined;
  /** Prepares the place of the data directory before anything is in it. What it returns undoes that in the end. */
  readonly prepare?: ((dataDirectory: string) => () => void) | undefined;
}

/** A Postgres that can be killed. Disposing stops it and removes its data. */
export interface OwnPostgres extends AsyncDisposable {
  /** Stays the same over a restart. */
  readonly url: string;
  readonly dataDirectory: string;
  /** True while the postmaster runs; it ends after a panic from which it cannot recover. */
  readonly isRunning: boolean;
  /**
   * Ends it with the signal, and waits until it has ended: SIGKILL as a crash does, SIGQUIT at once without a checkpoint,
   * SIGINT in order.
   */
  kill(signal: "SIGKILL" | "SIGQUIT" | "SIGINT"): Promise<void>;
  /** Starts it again, and waits until it answers. */
  start(): Promise<void>;
  /** Copies its data directory as it is now; only while it does not run. After `kill("SIGINT")` that is a backup. */
  copyData(): void;
  /** Puts that copy in its place again; only while it does not run. */
  setDataBack(): void;
  /** Process ids, the postmaster first. */
  processes(): number[];
  /** Stops all its processes where they are (SIGSTOP), until `resume`. */
  freeze(): void;
  resume(): void;
}

/** Starts one. */
export async function ownPostgres(options: OwnPostgresOptions = {}): Promise<OwnPostgres> {
  const { maxConnections = 100, prepare, network } = options;
  const directory = createTemporary(serverAccount());
  const { postgresData } = directory;
  const copy = `${postgresData}-copy`;
  const endWatchdog = await guardDirectory(directory);
  const undo = prepare?.(postgresData);
  const started = await startPostgres(directory, { maxConnections, initdb: initdbArguments });
  await prepareCluster(started.server.url);
  const { url } = started.server;
  const first = started.process;
  const command = network === undefined ? first.command : listeningOn(first.command, network.address);
  let server = first;
  let frozen: number[] = [];
  const resume = (): void => {
    for (const pid of frozen) signal(pid, "SIGCONT");
    frozen = [];
  };
  let children: number[] = [];
  const kill: OwnPostgres["kill"] = async (signal) => {
    children = childrenOf(server.pid);
    process.kill(server.pid, signal);
    await server.ended;
  };
  const start: OwnPostgres["start"] = async () => {
    // As long as processes of a killed server are still there, a new one refuses to start.
    const patientUntil = Date.now() + 5_000;
    const deadline = Date.now() + 20_000;
    for (;;) {
      // A backend that is computing does not notice that its postmaster is gone.
      if (Date.now() > patientUntil) for (const pid of children) signal(pid, "SIGKILL");
      server = await ServerProcess.start(command);
      if (await answers(server, url)) {
        children = [];
        return;
      }
      if (Date.now() > deadline) throw server.endedEarly();
    }
  };
  if (network !== undefined) {
    appendFileSync(
      `${postgresData}/pg_hba.conf`,
      `host all all ${network.address}/${network.prefixBits} scram-sha-256\n`,
    );
    await kill("SIGINT");
    await start();
  }
  return {
    url,
    dataDirectory: postgresData,
    get isRunning() {
      return server.end === undefined;
    },
    kill,
    start,
    copyData: () => replace(postgresData, copy),
    setDataBack: () => replace(copy, postgresData),
    processes: () => [server.pid, ...childrenOf(server.pid)],
    freeze() {
      // The postmaster first, so that it forks no further processes.
      frozen = [server.pid];
      signal(server.pid, "SIGSTOP");
      const children = childrenOf(server.pid);
      for (const pid of children) signal(pid, "SIGSTOP");
      frozen.push(...children);
    },
    resume,
    [Symbol.asyncDispose]: async () => {
      resume();
      await server.stop({ immediately: true });
      undo?.();
      giveUp(directory);
      await endWatchdog();
    },
  };
}

function listeningOn<Command extends { readonly args: readonly string[] }>(command: Command, address: string): Command {
  const args = command.args.map((arg) => (arg.startsWith("listen_addresses=") ? `${arg},${address}` : arg));
  return { ...command, args };
}

/** Copies a directory to another place, in the place of what is there. */
function replace(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  // Not node's cp: that one would make the copy ours.
  execFileSync("cp", ["-Rp", from, to]);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    // A process that has already ended needs no signal.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function childrenOf(pid: number): number[] {
  const { stdout } = spawnSync(systemProgram("pgrep"), ["-P", `${pid}`], { encoding: "utf8" });
  return stdout.split("\n").filter(Boolean).map(Number);
}

/** Waits for the server. @returns true if it accepts connections, false if it has ended */
async function answers(server: ServerProcess, url: string): Promise<boolean> {
  while (server.end === undefined) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
    client.on("error", () => undefined);
    try {
      await client.connect();
      return true;
    } catch {
      await Promise.race([delay(10), server.ended]);
    } finally {
      await client.end().catch(() => undefined);
    }
  }
  return false;
}
