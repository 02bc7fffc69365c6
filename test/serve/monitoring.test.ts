/**
 * Monitoring port of a running server: each part of the server has its metrics and health there.
 */
import { describe, expect, it } from "vitest";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { outboxState } from "../../src/nats/serve/monitoring.js";
import { testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";
import { onServer } from "../support/on-server.js";
import { slowIt } from "../support/slow-it.js";

describe("the monitoring port of hawser serve", () => {
  it("shows calls, messages and requests that were handled, under the name that it is given, and that all is well", async () => {
    const name = "app, of the north";
    await using gateway = await testGateway({ monitor: "127.0.0.1:0", tuning: { monitorDatabase: name } });
    const base = `http://${gateway.serve.monitorAddress}`;
    const subject = `monitored_${gateway.database.name}`;
    await gateway.client.query(`
      CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT';
      CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload';
    `);
    await gateway.client.query("SELECT nats_subscribe($1, 'take')", [subject]);
    await gateway.client.query("SELECT litmus_pgnats_register_responder($1, 'answer')", [`${subject}_asked`]);
    await gateway.client.query("SELECT litmus_pgnats_reload_conf()");
    await gateway.client.query("SELECT nats_publish_text($1, 'x')", [subject]);
    await gateway.nats.request(`${subject}_asked`, "x", { timeout: 20_000 });

    const metrics = async (): Promise<string> => (await fetch(`${base}/metrics`)).text();
    const value = async (series: RegExp): Promise<number> => {
      const line = (await metrics()).split("\n").find((one) => series.test(one));
      return Number(line?.split(" ").at(-1));
    };
    for (const series of [
      /^hawser_bridge_messages_committed_total\{/,
      /^hawser_bridge_batch_messages_count\{/,
      /^hawser_gateway_calls_total\{.*Publish".*ok/,
      /^hawser_responder_requests_total\{.*outcome="ok"/,
      /^hawser_responder_request_duration_seconds_count\{/,
    ]) {
      await eventually(`${series} counts one`, async () => (await value(series)) === 1);
    }
    expect(await value(/^hawser_bridge_leading\{/)).toBe(1);
    expect(await value(/^hawser_postgres_up\{/)).toBe(1);
    const lines = (await metrics()).split("\n").filter((line) => line.startsWith("hawser_"));
    const database = `database="${name}"`;
    expect(lines.filter((line) => !line.includes(database))).toEqual([]);
    const take = `subject="${subject}",function="public.take(bytea)",${database}`;
    const answer = `subject="${subject}_asked",function="public.answer(bytea)",outcome="ok",${database}`;
    expect(lines.filter((line) => line.includes(take))).not.toEqual([]);
    expect(lines.filter((line) => line.includes(answer))).toHaveLength(1);
    for (const page of ["healthz", "readyz"]) expect((await fetch(`${base}/${page}`)).status, page).toBe(200);
  });

  slowIt(
    "knows of calls that reached no gateway, although their transactions rolled back, and of none that were refused",
    async () => {
      const warnings: string[] = [];
      const ignore = () => undefined;
      const logger = {
        debug: ignore,
        info: ignore,
        error: ignore,
        warn: (_: object, text: string) => void warnings.push(text),
      };
      await using gateway = await testGateway({ monitor: "127.0.0.1:0", serverOptions: false, logger });
      const unreached = async (): Promise<number | undefined> => {
        const text = await (await fetch(`http://${gateway.serve.monitorAddress}/metrics`)).text();
        const [, shown] = /^hawser_gateway_unreached_timestamp_seconds\{.*\} (\S+)$/m.exec(text) ?? [];
        return shown === undefined ? undefined : Number(shown);
      };
      const call = "SELECT nats_publish_text('a', 'x')";
      const noted = () => gateway.value<Date | null>("SELECT hawser.gateway_unreached_at()");
      expect((await gateway.errorOf(call)).code).not.toBe("08001");
      expect(await noted()).toBeNull();
      // Nobody listens on port 1. It is the youngest, and the only one with its TLS settings.
      await gateway.client.query(
        "INSERT INTO hawser_bridge_data.gateways (host, port, sslmode, started_at) VALUES ('127.0.0.1', 1, 'require', now() + interval '1 h')",
      );
      await using session = { client: await gateway.connect(), [Symbol.asyncDispose]: () => session.client.end() };
      await session.client.query("BEGIN READ ONLY");
      await expect(session.client.query(call)).rejects.toMatchObject({ code: "08001" });
      await session.client.query("ROLLBACK");
      expect(await noted()).toBeNull();
      expect(await unreached()).toBeUndefined();
      await session.client.query("BEGIN");
      await expect(session.client.query(call)).rejects.toMatchObject({ code: "08001" });
      await session.client.query("ROLLBACK");
      const at = (await noted())!.getTime() / 1_000;
      await eventually("it is shown", async () => (await unreached()) === at);
      expect(warnings.filter((text) => text.includes("reached no gateway"))).toHaveLength(1);
    },
  );

  it("counts the outbox and dead letters in the database, also while no process relays", async () => {
    // Without a NATS server none leads.
    await using database = await testDatabase();
    await onServer(
      database.url,
      `
      SELECT hawser.enqueue('monitored', 'x', stream => false);
      UPDATE hawser_data.outbox SET enqueued_at = now() - interval '1 h';
      INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, created_at, role)
      SELECT 'subscription', 's', 't', ''::bytea, 'c', 'm', 1, now() - age, 'r' FROM unnest('{1 min,9 min,11 min}'::interval[]) AS age
      UNION ALL
      SELECT 'outbox', 's', 't', '', 'c', 'm', 1, now(), 'r' FROM generate_series(1, 10001)`,
    );
    await using serve = await startServer({
      databaseUrl: database.url,
      listen: "127.0.0.1:0",
      monitor: "127.0.0.1:0",
    });
    const shown = async (): Promise<Map<string, number>> => {
      const lines = (await (await fetch(`http://${serve.monitorAddress}/metrics`)).text()).split("\n");
      const series = new RegExp(`^(hawser_\\w+)\\{(?:origin="(\\w+)",)?database="${database.name}"\\} (\\S+)$`);
      const found = lines.map((line) => series.exec(line));
      return new Map(
        found.flatMap((match) => (match === null ? [] : [[`${match[1]} ${match[2] ?? ""}`.trim(), Number(match[3])]])),
      );
    };
    await eventually("they are counted", async () => (await shown()).has("hawser_recent_dead_letters queue"));
    const names = /^hawser_(?:outbox_enqueued|recent_dead)/;
    const counted = [...(await shown())].filter(([name]) => names.test(name));
    const { hawser_outbox_enqueued_age_seconds: ageSeconds, ...others } = Object.fromEntries(counted);
    expect(ageSeconds).toBeGreaterThanOrEqual(3_600);
    expect(others).toEqual({
      hawser_outbox_enqueued_messages: 1,
      "hawser_recent_dead_letters queue": 0,
      "hawser_recent_dead_letters subscription": 2,
      "hawser_recent_dead_letters outbox": 10_000,
    });
  });

  it("is not ready while messages of the outbox wait, and its position does not move", () => {
    const movedAgo = (ms: number) => outboxState({ positionAt: performance.now() - ms });
    expect([outboxState(undefined), outboxState({ positionAt: undefined }), movedAgo(29_000)]).toEqual(
      Array(3).fill({ ok: true }),
    );
    expect(movedAgo(31_500)).toEqual({
      ok: false,
      detail: "messages of the outbox wait, and its position has not moved for 31 s",
    });
  });
});
