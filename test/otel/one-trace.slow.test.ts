/**
 * One trace through everything: an HTTP handler enqueues in its transaction; `hawser serve` relays to a stream; that of another
 * database runs a function, which enqueues to a peer; the peer handles it. All export by OTLP to a receiver of the test. The
 * relay and the peer are killed on the way, and the peer's handler fails once.
 */
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { ServeProcess } from "../faults/support/serve-process.js";
import { sqlDatabase } from "../faults/support/sql-database.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { startProgram } from "../support/program.js";
import { otlpReceiver } from "./support/otlp-receiver.js";

it("spans of all processes form one trace, across a kill of the relay, one of the peer, and a retry", async () => {
  await using receiver = await otlpReceiver();
  await using nats = await startNatsServer({ jetStream: true });
  await using shopDatabase = await sqlDatabase(nats.url);
  await using stockDatabase = await sqlDatabase(nats.url);
  const manager = await connect({ servers: nats.url });
  await (await jetstreamManager(manager)).streams.add({ name: "ORDERS", subjects: ["orders.>"] });
  await manager.close();
  const query = async (url: string, sql: string) => {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    try {
      return (await client.query(sql)).rows;
    } finally {
      await client.end();
    }
  };
  const serve = (url: string, name: string) =>
    ServeProcess.start(url, [], { ...receiver.env, OTEL_SERVICE_NAME: name });
  await using shopServe = await serve(shopDatabase.url, "shop-serve");
  await using _stockServe = await serve(stockDatabase.url, "stock-serve");
  await query(shopDatabase.url, "CREATE TABLE orders (text text)");
  await query(
    stockDatabase.url,
    `CREATE TABLE packed (text text);
     CREATE FUNCTION pack(payload bytea) RETURNS void LANGUAGE sql AS
       $$SELECT hawser.enqueue('packing', convert_from(payload, 'UTF8'))$$;`,
  );
  await query(stockDatabase.url, "SELECT nats_subscribe_stream('ORDERS', 'pack(bytea)'::regprocedure, 'new-orders')");
  const program = (name: string, url: string, ...args: string[]) =>
    startProgram(`test/otel/programs/${name}.ts`, args, { env: { ...receiver.env, HAWSER_DATABASE_URL: url } });
  const shop = program("shop", shopDatabase.url);
  const packers = [program("packer", stockDatabase.url, "hang")];
  try {
    const port = await shop.firstLine;
    expect(await packers[0]!.firstLine).toBe("running");
    await shopServe.crash();
    const { ok } = await fetch(`http://127.0.0.1:${port}/orders`, { method: "POST", body: "a rope" });
    expect(ok).toBe(true);
    await shopServe.start();
    let seen = "";
    packers[0]!.child.stdout!.on("data", (chunk: Buffer) => {
      seen += chunk.toString();
    });
    await eventually("the first packer handles the order", () => seen.includes("handling"));
    packers[0]!.child.kill("SIGKILL");
    packers.push(program("packer", stockDatabase.url, "fail"));
    await eventually("the order is packed", async () => {
      return (await query(stockDatabase.url, "SELECT FROM packed")).length === 1;
    });
    const named = (name: string) => receiver.spans.filter((span) => span.name === name);
    await eventually("all spans have come", () => named("process packing").length === 2);
    const [request] = named("POST /orders");
    const [enqueued] = named("enqueue orders.new");
    const [sent] = named("send orders.new");
    const [ran] = named("process new-orders");
    const [failed, packed] = named("process packing");
    const { traceId } = request!;
    expect(
      [request, enqueued, sent, ran, failed, packed].map((span) => [
        span!.service,
        span!.parentSpanId || undefined,
        span!.traceId,
        span!.status.code === 2,
      ]),
    ).toEqual([
      ["shop", undefined, traceId, false],
      ["shop", request!.spanId, traceId, false],
      ["shop-serve", enqueued!.spanId, traceId, false],
      ["stock-serve", enqueued!.spanId, traceId, false],
      ["packer", ran!.spanId, traceId, true],
      ["packer", ran!.spanId, traceId, false],
    ]);
    expect(failed!.status.message).toBe("no paper");
    expect(Number(packed!.attributes["hawser.attempt"])).toBeGreaterThan(Number(failed!.attributes["hawser.attempt"]));
    expect(ran!.attributes).toMatchObject({ "hawser.function": "public.pack(bytea)" });
    expect(new Set(receiver.spans.filter((span) => span.traceId === traceId).map(({ name }) => name)).size).toBe(5);
  } finally {
    for (const { child } of [shop, ...packers]) child.kill("SIGKILL");
  }
});
