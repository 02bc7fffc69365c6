/**
 * What a running `Serve` shows at its monitoring port: each part of it has to arrive there.
 */
import { expect, it } from "vitest";
import { outboxState } from "../../src/serve/monitoring.js";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";

it("shows calls, messages and requests that were handled, and that all is well", async () => {
  await using gateway = await testGateway({ monitorListen: "127.0.0.1:0" });
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
  const database = `database="${gateway.database.name}"`;
  expect(lines.filter((line) => !line.includes(database))).toEqual([]);
  const take = `subject="${subject}",function="public.take(bytea)",${database}`;
  const answer = `subject="${subject}_asked",function="public.answer(bytea)",outcome="ok",${database}`;
  expect(lines.filter((line) => line.includes(take))).not.toEqual([]);
  expect(lines.filter((line) => line.includes(answer))).toHaveLength(1);
  for (const page of ["healthz", "readyz"]) expect((await fetch(`${base}/${page}`)).status, page).toBe(200);
});

it("shows the name that it is given in place of that of the database", async () => {
  await using gateway = await testGateway({ monitorListen: "127.0.0.1:0", monitorDatabase: "app, of the north" });
  const metrics = await (await fetch(`http://${gateway.serve.monitorAddress}/metrics`)).text();
  expect(metrics).toMatch(/^hawser_bridge_leading\{database="app, of the north"\} [01]$/m);
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
