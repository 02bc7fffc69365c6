/**
 * Database sessions that repeat a statement in loops of PL/pgSQL, which say how long they took: what suites share that
 * measure functions in SQL. Each session has the connection of Hawser's functions, and one of the name `bench` to the
 * gateway, for bare calls of dblink.
 */
import type pg from "pg";
import { connected } from "./postgres.js";

/** Time and CPU usage of a run. */
export interface LoopRun {
  /** Elapsed time of the slowest session. */
  readonly seconds: number;
  /** CPU time of all backends; undefined if the server's operating system does not report it. */
  readonly backendSeconds: number | undefined;
}

/** A call that the gateway answers at once, without NATS: the least that any function over it could cost. */
export const emptyCall = bareCall("Ping");

/** A call of dblink with ready-made text for the gateway. */
export function bareCall(text: string): string {
  return `PERFORM FROM hawser_dblink.dblink('bench', '${text}') AS answer (r text);`;
}

/**
 * Makes a function that carries out a statement of PL/pgSQL so many times.
 *
 * @param declarations what else it declares
 */
export async function createLoop(
  databaseUrl: string,
  name: string,
  statement: string,
  declarations = "",
): Promise<void> {
  const client = await connected(databaseUrl);
  try {
    await client.query(
      `CREATE FUNCTION public.${loopName(name)}(times integer, OUT seconds double precision, OUT backend_seconds double precision)
       LANGUAGE plpgsql AS $loop$
       DECLARE
         ${declarations}
         started timestamptz := clock_timestamp();
         used double precision := public.bench_cpu_seconds();
       BEGIN
         FOR turn IN 1..times LOOP
           ${statement}
         END LOOP;
         seconds := extract(epoch FROM clock_timestamp() - started);
         backend_seconds := public.bench_cpu_seconds() - used;
       END $loop$`,
    );
  } finally {
    await client.end();
  }
}

/** Makes what the loops need. Needs a superuser. */
export async function prepareLoops(databaseUrl: string): Promise<void> {
  const client = await connected(databaseUrl);
  try {
    // Nanoseconds on a processor, of this backend. Linux has them.
    await client.query(
      `CREATE FUNCTION public.bench_cpu_seconds() RETURNS double precision LANGUAGE sql
       AS $$SELECT split_part(pg_read_file('/proc/self/schedstat', 0, 100, true), ' ', 1)::double precision / 1e9$$`,
    );
  } finally {
    await client.end();
  }
}

function loopName(name: string): string {
  return `bench_${name.replaceAll(/\W/g, "_")}`;
}

/** Some database sessions. */
export class Sessions {
  readonly #clients: readonly pg.Client[];

  private constructor(clients: readonly pg.Client[]) {
    this.#clients = clients;
  }

  static async open(databaseUrl: string, count: number): Promise<Sessions> {
    const clients: pg.Client[] = [];
    const sessions = new Sessions(clients);
    try {
      for (let number = 0; number < count; number++) {
        const client = await connected(databaseUrl);
        clients.push(client);
        await client.query("SELECT hawser_dblink.dblink_connect('bench', hawser.gateway_conninfo())");
      }
      return sessions;
    } catch (error) {
      await sessions.close();
      throw error;
    }
  }

  /** The first `count` of them carry out the loop, sharing the times between them. */
  async run(name: string, times: number, count = this.#clients.length): Promise<LoopRun> {
    const each = Math.max(1, Math.round(times / count));
    const runs = await Promise.all(
      this.#clients.slice(0, count).map(async (client) => {
        const { rows } = await client.query<{ seconds: number; backend_seconds: number | null }>(
          `SELECT * FROM public.${loopName(name)}($1::integer)`,
          [each],
        );
        return rows[0]!;
      }),
    );
    const used = runs.flatMap(({ backend_seconds }) => (backend_seconds === null ? [] : [backend_seconds]));
    return {
      seconds: Math.max(...runs.map(({ seconds }) => seconds)),
      backendSeconds: used.length === 0 ? undefined : used.reduce((sum, one) => sum + one),
    };
  }

  /** All of them run a statement. */
  async query(statement: string): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.query(statement)));
  }

  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.end()));
  }
}
