/** An HTTP server whose handler begins a trace, and enqueues an order for a stream in its transaction. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { SpanKind, trace } from "@opentelemetry/api";
import { NodeSDK } from "@opentelemetry/sdk-node";
import pg from "pg";
import { enqueue } from "../../../src/jobs-and-peers/peer/index.js";
import { instrument } from "../../../src/operating/otel/index.js";

new NodeSDK({ serviceName: "shop" }).start();
instrument();
const pool = new pg.Pool({ connectionString: process.env["HAWSER_DATABASE_URL"] });
const tracer = trace.getTracer("shop");

const server = createServer(async (request, response) => {
  const order = await text(request);
  await tracer.startActiveSpan("POST /orders", { kind: SpanKind.SERVER }, async (span) => {
    const client = await pool.connect();
    await client.query("BEGIN");
    await client.query("INSERT INTO orders (text) VALUES ($1)", [order]);
    await enqueue(client, { subject: "orders.new", stream: true }, order);
    await client.query("COMMIT");
    client.release();
    span.end();
  });
  response.end();
}).listen(0, "127.0.0.1");
await once(server, "listening");
console.log((server.address() as AddressInfo).port);
