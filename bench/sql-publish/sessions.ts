/**
 * Database sessions that publish in a loop of PL/pgSQL, so that nothing is measured but the call.
 */
import pg from "pg";

/** What a turn of the loop does. */
export type PublishWay = "function" | "dblink" | "empty dblink" | "batch";

/** Where the messages go: of the run's own, as others may measure with the same nats-server. */
export const subject = `bench.sql-publish.${process.pid}`;

/** Loops that count by themselves how long they took, in seconds. The text of the dblink calls is ready-made. */
const functions: Record<PublishWay, (payloadBytes: number) => string> = {
  function: (bytes) => loop(`PERFORM public.nats_publish_text('${subject}', ${sqlPayload(bytes)});`),
  dblink: (bytes) => {
    const payload = Buffer.alloc(bytes, "x").toString("base64");
    const call = `Publish {"subject":"${subject}","payload":"${payload}"}`;
    return loop(`PERFORM FROM hawser_dblink.dblink('bench', '${call}') AS answer (r text);`);
  },
  "empty dblink": () => loop(`PERFORM FROM hawser_dblink.dblink('bench', 'Ping') AS answer (r text);`),
  batch: (bytes) => `
    DECLARE
      payloads CONSTANT text[] := array_fill(${sqlPayload(bytes)}, ARRAY[least(times, ${batchMessages})]);
      started timestamptz := clock_timestamp();
    BEGIN
      FOR turn IN 1..greatest(1, times / ${batchMessages}) LOOP
        PERFORM public.nats_publish_text_batch('${subject}', payloads);
      END LOOP;
      RETURN extract(epoch FROM clock_timestamp() - started);
    END`,
};

/** Messages of one batch. */
export const batchMessages = 10_000;

function sqlPayload(bytes: number): string {
  return `'${"x".repeat(bytes)}'::text`;
}

function loop(statement: string): string {
  return `
    DECLARE
      started timestamptz := clock_timestamp();
    BEGIN
      FOR turn IN 1..times LOOP
        ${statement}
      END LOOP;
      RETURN extract(epoch FROM clock_timestamp() - started);
    END`;
}

/** Makes the loops. */
export async function createLoops(databaseUrl: string, payloadBytes: number): Promise<void> {
  const client = await connected(databaseUrl);
  try {
    for (const [way, body] of Object.entries(functions)) {
      await client.query(
        `CREATE FUNCTION public.${loopName(way as PublishWay)}(times integer) RETURNS double precision
         LANGUAGE plpgsql AS $loop$${body(payloadBytes)}$loop$`,
      );
    }
  } finally {
    await client.end();
  }
}

function loopName(way: PublishWay): string {
  return `bench_${way.replace(" ", "_")}`;
}

/** Some database sessions. Each has the connection of the functions, and one of the name `bench` for the bare calls. */
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

  /** All of them do it, sharing the times between them. @returns how long the slowest took, in seconds */
  async run(way: PublishWay, times: number): Promise<number> {
    const each = Math.max(1, Math.round(times / this.#clients.length));
    const seconds = await Promise.all(
      this.#clients.map(async (client) => {
        const { rows } = await client.query<{ seconds: number }>(
          `SELECT public.${loopName(way)}($1::integer) AS seconds`,
          [each],
        );
        return rows[0]!.seconds;
      }),
    );
    return Math.max(...seconds);
  }

  /** Resolves when NATS has read what they published. */
  async flush(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.query("SELECT public.nats_flush()")));
  }

  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.end()));
  }
}

async function connected(databaseUrl: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: databaseUrl });
  client.on("error", () => undefined);
  await client.connect();
  return client;
}
