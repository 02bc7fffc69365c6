/**
 * Export by OTLP where the collector is away or hangs, where packages are missing, of traces alone, and by `hawser dev`.
 */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { otlpReceiver } from "../otel/support/otlp-receiver.js";
import { nodeProgram } from "../support/built-programs.js";
import { type TestDatabase, testDatabase, testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";
import { ownPort } from "../support/own-port.js";
import { type Program, startCommand } from "../support/program.js";
import { announced, dev } from "./support/dev.js";
import { jsonLines, startHawser } from "./support/hawser.js";
import { publishTraced, subscribeFunction, traceId } from "./support/traced.js";

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

  const withoutPackages = (args: readonly string[], env: Readonly<Record<string, string>>): Program => {
    const preloaded = pathToFileURL(nodeProgram("test/cli/programs/without-opentelemetry.ts").file).href;
    const { execArgv, file } = nodeProgram("src/operating/cli/main.ts");
    const command = [...execArgv, "--import", preloaded, file, ...args];
    return startCommand(process.execPath, command, { env, stdin: "ignore" });
  };

  it("exports traces alone to the endpoint for them, under the name that it is given", async () => {
    await using receiver = await otlpReceiver();
    const { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, ...others } = receiver.env;
    const env = {
      ...others,
      OTEL_METRICS_EXPORTER: "",
      OTEL_LOGS_EXPORTER: "",
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${endpoint}/v1/traces`,
      OTEL_RESOURCE_ATTRIBUTES: "service.name=shop,deployment.environment.name=test",
    };
    const { hostname: host, port } = new URL(testNatsUrl());
    await onServer(database.url, `SELECT hawser.set_nats_server('${JSON.stringify({ host, port })}')`);
    const subject = `exported_${database.name}`;
    await subscribeFunction(database.url, subject);
    const program = startHawser(["serve", "--listen", "127.0.0.1:0"], { databaseUrl: database.url, env });
    await program.firstLine;
    await publishTraced(database.url, subject);
    await eventually("its span comes", () => receiver.spans.some(({ name }) => name === `process ${subject}`));
    expect(new Set(receiver.spans.map(({ service }) => service))).toEqual(new Set(["shop"]));
    program.child.kill("SIGTERM");
    expect((await program.ended).status).toBe(0);
    expect(receiver.metrics.size).toBe(0);
  });

  it.each([
    ["serve", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"],
    ["dev", "OTEL_METRICS_EXPORTER", "otlp"],
  ])("refuses to start %s with %s if the packages are missing", async (command, variable, value) => {
    const { status, stdout, stderr } = await withoutPackages([command], { [variable]: value }).ended;
    expect(status).toBe(errorTable.not_supported.exitStatus);
    expect(stdout).toBe("");
    expect(stderr).toContain(`${variable} asks for an export by OpenTelemetry`);
    expect(stderr).toContain("`npm install @opentelemetry/api@1.9 @opentelemetry/sdk-node@0.223`, or unset");
  });

  it("needs no package without an export", async () => {
    const args = ["serve", "--listen", "127.0.0.1:0", "--database-url", database.url];
    const program = withoutPackages(args, { OTEL_EXPORTER_OTLP_ENDPOINT: "http://x", OTEL_SDK_DISABLED: "true" });
    await program.firstLine;
    program.child.kill("SIGTERM");
    expect((await program.ended).status).toBe(0);
  });
});

it("hawser dev exports what its functions do", async () => {
  await using receiver = await otlpReceiver();
  const program = dev(["--json", "--port", "0", "--nats-port", "0"], { env: receiver.env });
  const { databaseUrl } = await announced(program);
  await subscribeFunction(databaseUrl, "orders");
  await publishTraced(databaseUrl, "orders");
  program.child.kill("SIGTERM");
  expect(await program.ended).toMatchObject({ status: 0 });
  expect(receiver.spans).toContainEqual(
    expect.objectContaining({ service: "hawser-serve", name: "process orders", traceId }),
  );
});
