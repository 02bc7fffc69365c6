/**
 * Export by OTLP where the collector is away or hangs, and by `hawser dev`.
 */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { otlpReceiver } from "../otel/support/otlp-receiver.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { ownPort } from "../support/own-port.js";
import { announced, dev } from "./support/dev.js";
import { jsonLines, startHawser } from "./support/hawser.js";

const secret = "s3cret/of:the-collector";

describe("hawser serve", () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await testDatabase();
  });
  afterAll(() => database.drop());

  /** Exports metrics to a port of this machine, which happens at its end. */
  async function started(port: number) {
    const env = {
      OTEL_METRICS_EXPORTER: "otlp",
      OTEL_EXPORTER_OTLP_ENDPOINT: `http://hawser:${encodeURIComponent(secret)}@127.0.0.1:${port}`,
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
    };
    const program = startHawser(["serve", "--listen", "127.0.0.1:0"], { databaseUrl: database.url, env });
    await program.firstLine;
    return program;
  }

  it("ends although the collector is away, and says so without the password of its URL", async () => {
    const program = await started(await ownPort());
    program.child.kill("SIGTERM");
    const { status, stderr } = await program.ended;
    expect(status).toBe(0);
    expect(jsonLines(stderr)).toContainEqual(
      expect.objectContaining({ level: 40, msg: "the last traces or metrics were not exported" }),
    );
    expect(stderr).not.toContain(secret);
    expect(stderr).not.toContain(encodeURIComponent(secret));
  });

  /** Collector that takes requests and answers none. */
  async function hanging(): Promise<Server> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => {
      server.close();
      server.closeAllConnections();
    });
    return server;
  }

  it("ends although the collector hangs", async () => {
    const collector = await hanging();
    const program = await started((collector.address() as AddressInfo).port);
    program.child.kill("SIGTERM");
    const { status, stderr } = await program.ended;
    expect(status).toBe(0);
    expect(jsonLines(stderr)).toContainEqual(
      expect.objectContaining({ words: "the collector has not answered in time" }),
    );
  });

  it("at a second Ctrl-C does not wait for the collector any longer", async () => {
    const collector = await hanging();
    const program = await started((collector.address() as AddressInfo).port);
    const asked = once(collector, "request");
    program.child.kill("SIGINT");
    await asked;
    const impatience = setInterval(() => program.child.kill("SIGINT"), 100);
    const { status, stderr } = await program.ended;
    clearInterval(impatience);
    expect(status).toBe(130);
    expect(stderr).not.toContain("has stopped");
  });
});

it("hawser dev exports what its functions do", async () => {
  await using receiver = await otlpReceiver();
  const program = dev(["--json", "--port", "0", "--nats-port", "0"], { env: receiver.env });
  const { databaseUrl } = await announced(program);
  await onServer(
    databaseUrl,
    "CREATE TABLE taken (payload bytea)",
    "CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql AS 'INSERT INTO taken VALUES ($1)'",
    "SELECT nats_subscribe('orders', 'take')",
  );
  const traceId = "0af7651916cd43dd8448eb211c80319c";
  const headers = JSON.stringify({ traceparent: `00-${traceId}-b7ad6b7169203331-01` });
  await eventually("the function has run", async () => {
    await onServer(databaseUrl, `SELECT nats_publish_text('orders', 'x', headers => '${headers}')`);
    return (await rowsOf(databaseUrl, "SELECT FROM taken")).length > 0;
  });
  program.child.kill("SIGTERM");
  expect(await program.ended).toMatchObject({ status: 0 });
  expect(receiver.spans).toContainEqual(
    expect.objectContaining({ service: "hawser-serve", name: "process orders", traceId }),
  );
});
