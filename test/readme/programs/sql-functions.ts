/**
 * Fixtures of an example that calls SQL functions: the NATS server of a prepared database, and a service that answers.
 */
import pg from "pg";
import { serve as startServer } from "../../../src/nats/serve/index.js";
import { defineNatsServer } from "../../../src/operating/operate/index.js";

/** Fixtures of a block, which end with it. */
export interface SqlFunctions extends AsyncDisposable {
  readonly pool: pg.Pool;
}

/** Answers as `hawser serve` does. */
export async function sqlFunctions(databaseUrl: string, natsUrl: string): Promise<SqlFunctions> {
  const { hostname, port } = new URL(natsUrl);
  await defineNatsServer({ databaseUrl, options: { host: hostname, port } });
  const serve = await startServer({ databaseUrl, listen: "127.0.0.1:0" });
  const pool = new pg.Pool({ connectionString: databaseUrl });
  return {
    pool,
    [Symbol.asyncDispose]: async () => {
      await pool.end();
      await serve.stop();
    },
  };
}
