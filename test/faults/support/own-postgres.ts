/**
 * A Postgres of a test's own, to be killed and started again on the same data and port.
 */
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { serverAccount } from "../../../src/dev/account.js";
import { guardDirectory } from "../../../src/dev/guard.js";
import { startPostgres } from "../../../src/dev/postgres/server.js";
import { createTemporary, giveUp } from "../../../src/dev/run-directory.js";
import { ServerProcess } from "../../../src/dev/server-process.js";

/** A Postgres that can be killed. Disposing stops it and removes its data. */
export interface OwnPostgres extends AsyncDisposable {
  /** Stays the same over a restart. */
  readonly url: string;
  /** Ends it with the signal, and waits until it has ended: SIGKILL as a crash does, SIGQUIT at once without a checkpoint. */
  kill(signal: "SIGKILL" | "SIGQUIT"): Promise<void>;
  /** Starts it again, and waits until it answers. */
  start(): Promise<void>;
}

/** Starts one. */
export async function ownPostgres(): Promise<OwnPostgres> {
  const directory = createTemporary(serverAccount());
  const guard = await guardDirectory(directory);
  const { url, process: first } = await startPostgres(directory, { maxConnections: 100 });
  let server = first;
  return {
    url,
    async kill(signal) {
      process.kill(server.pid, signal);
      await server.ended;
    },
    async start() {
      // As long as processes of a killed server are still there, a new one refuses to start.
      const deadline = Date.now() + 20_000;
      for (;;) {
        server = await ServerProcess.start(first.command);
        if (await answers(server, url)) return;
        if (Date.now() > deadline) throw server.endedEarly();
      }
    },
    [Symbol.asyncDispose]: async () => {
      await server.stop({ immediately: true });
      giveUp(directory);
      await guard.release();
    },
  };
}

/** Whether it came to answer, as opposed to having ended. */
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
