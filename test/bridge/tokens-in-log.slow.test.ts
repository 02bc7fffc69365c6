/**
 * Log of Postgres about statements of `hawser serve`: it contains no token with which a wrapper could be called.
 */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, nuid } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { install } from "../../src/operating/installation/index.js";
import { ownPostgres } from "../faults/support/own-postgres.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";

it("tokens of wrappers are not in the log, whatever Postgres logs of statements and errors", async () => {
  await using postgres = await ownPostgres();
  const { url } = postgres;
  await onServer(
    url,
    "ALTER SYSTEM SET log_statement = 'all'",
    "ALTER SYSTEM SET log_duration = on",
    "ALTER SYSTEM SET log_min_duration_statement = 0",
    "ALTER SYSTEM SET log_parameter_max_length = -1",
    "ALTER SYSTEM SET log_parameter_max_length_on_error = -1",
    "ALTER SYSTEM SET log_error_verbosity = verbose",
    "SELECT pg_reload_conf()",
  );
  await install({ databaseUrl: url });
  const { hostname: host, port } = new URL(testNatsUrl());
  await onServer(url, `SELECT hawser.set_nats_server('${JSON.stringify({ host, port })}')`);
  const client = new pg.Client(url);
  await client.connect();
  const nats = await connect({ servers: testNatsUrl() });
  const serve = await startServer({ databaseUrl: url, listen: "127.0.0.1:0" });
  try {
    const name = nuid.next();
    await (await jetstreamManager(nats)).streams.add({ name, subjects: [`${name}.stream`] });
    await client.query(`
      CREATE TABLE mended (at timestamptz);
      CREATE TABLE ran (payload text);
      CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE plpgsql AS $$BEGIN
        IF convert_from(payload, 'UTF8') = 'bad' AND NOT EXISTS (SELECT FROM public.mended) THEN RAISE EXCEPTION 'not yet'; END IF;
        INSERT INTO public.ran VALUES (convert_from(payload, 'UTF8'));
      END$$;
      CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload';
      SELECT nats_subscribe('${name}.core', 'take'), nats_subscribe_stream('${name}', 'take', '${name}'),
             litmus_pgnats_register_responder('${name}.ask', 'answer')`);
    const ran = async () =>
      (await client.query("SELECT payload FROM ran ORDER BY 1")).rows.map(({ payload }) => payload);
    const dead = async () =>
      Number((await client.query("SELECT count(*) FROM hawser_data.dead_letters")).rows[0].count);
    await jetstream(nats).publish(`${name}.stream`, "of the stream");
    await jetstream(nats).publish(`${name}.stream`, "bad");
    await eventually("the stream is done", async () => (await ran()).length === 1 && (await dead()) === 1);
    await eventually("the subscription is live", async () => {
      nats.publish(`${name}.core`, "bad");
      await nats.flush();
      return (await dead()) > 1;
    });
    await eventually("it answers", async () => {
      const answer = await nats.request(`${name}.ask`, "question").catch(() => undefined);
      return answer?.string() === "question";
    });
    await client.query("INSERT INTO mended VALUES (now())");
    await client.query("SELECT hawser.retry_dead_letters(ARRAY(SELECT id FROM hawser_data.dead_letters))");
    await eventually("all is handled", async () => (await dead()) === 0);
    const { rows } = await client.query<{ token: Buffer }>("SELECT token FROM hawser_bridge_data.nats_handlers");
    expect(rows).toHaveLength(3);
    const log = readFileSync(join(dirname(postgres.dataDirectory), "postgres.log"), "utf8");
    // Parameters are in it, also those of what has failed.
    expect(log).toContain(Buffer.from("of the stream").toString("hex"));
    expect(log).toMatch(/not yet[\s\S]*unnamed portal with parameters/);
    for (const { token } of rows) {
      expect(log.includes(token.toString("hex"))).toBe(false);
      expect(log.includes(token.toString("base64"))).toBe(false);
    }
  } finally {
    await serve.stop();
    await client.end();
    await nats.close();
  }
});
