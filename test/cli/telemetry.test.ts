/**
 * Export of traces and metrics by `hawser serve`, which the variables of OpenTelemetry turn on.
 */
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { errorTable } from "../../generated/ts/errors/errors.js";
import { wantedExports, withoutHeaders } from "../../src/cli/telemetry.js";
import { version } from "../../src/files/index.js";
import { otlpReceiver } from "../otel/support/otlp-receiver.js";
import { nodeProgram } from "../support/built-programs.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { type Program, startCommand } from "../support/program.js";
import { jsonLines, startHawser } from "./support/hawser.js";

const traceId = "0af7651916cd43dd8448eb211c80319c";
const traceparent = `00-${traceId}-b7ad6b7169203331-01`;

const secret = "s3cret/of:the-collector";

describe("hawser serve", () => {
  let database: Awaited<ReturnType<typeof testDatabase>>;
  let subject: string;

  beforeAll(async () => {
    database = await testDatabase();
    const { hostname: host, port } = new URL(testNatsUrl());
    await onServer(database.url, `SELECT hawser.set_nats_server('${JSON.stringify({ host, port })}')`);
    subject = `exported_${database.name}`;
    await onServer(database.url, "CREATE TABLE taken (payload bytea)");
    await onServer(
      database.url,
      "CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql AS 'INSERT INTO taken VALUES ($1)'",
    );
    await onServer(database.url, `SELECT nats_subscribe('${subject}', 'take')`);
  });
  afterAll(() => database.drop());

  /** With variables of OpenTelemetry, until it answers. */
  async function started(env: Readonly<Record<string, string>>): Promise<Program> {
    const program = startHawser(["serve", "--listen", "127.0.0.1:0", "--database-url", database.url], { env });
    await program.firstLine;
    return program;
  }

  /** Publishes messages of the trace until the function has run: before it is subscribed, they reach nobody. */
  async function publish(): Promise<void> {
    await onServer(database.url, "TRUNCATE taken");
    const headers = JSON.stringify({ traceparent });
    await eventually("the function has run", async () => {
      await onServer(database.url, `SELECT nats_publish_text('${subject}', 'x', headers => '${headers}')`);
      return (await rowsOf(database.url, "SELECT FROM taken")).length > 0;
    });
  }

  it("exports the spans and metrics that it has, at its end at the latest, and logs no secret", async () => {
    await using receiver = await otlpReceiver();
    const program = await started({
      ...receiver.env,
      // Longer than the test.
      OTEL_BSP_SCHEDULE_DELAY: "600000",
      OTEL_METRIC_EXPORT_INTERVAL: "600000",
      OTEL_METRICS_EXPORTER: "otlp",
      OTEL_EXPORTER_OTLP_HEADERS: `authorization=Bearer%20${encodeURIComponent(secret)}`,
      OTEL_LOG_LEVEL: "debug",
    });
    await publish();
    expect(receiver.requestHeaders).toEqual([]);
    program.child.kill("SIGTERM");
    const { status, stdout, stderr } = await program.ended;
    expect(status).toBe(0);
    expect(jsonLines(stdout)).toEqual([{ gatewayUrl: expect.stringContaining("postgres://") }]);
    const told = jsonLines(stderr);
    expect(told).toContainEqual(
      expect.objectContaining({ msg: "exporting by OpenTelemetry", traces: true, metrics: true }),
    );
    expect(told.at(-1)).toMatchObject({ msg: "has stopped" });
    expect(stderr).not.toContain(secret);
    expect(stderr).not.toContain(encodeURIComponent(secret));

    const [span] = receiver.spans.filter(({ name }) => name === `process ${subject}`);
    expect(span).toMatchObject({ service: "hawser-serve", traceId, parentSpanId: "b7ad6b7169203331" });
    expect(receiver.metrics).toContain("hawser_bridge_messages_committed_total");
    expect(receiver.metrics).toContain("hawser_bridge_batch_duration_seconds");
    for (const headers of receiver.requestHeaders) expect(headers.authorization).toBe(`Bearer ${secret}`);
    const [resource] = receiver.resources;
    expect(resource).toMatchObject({ "service.version": version, "service.instance.id": expect.any(String) });
    // The command line has the database's URL.
    expect(JSON.stringify(receiver.resources)).not.toContain("postgres://");
  });

  it("exports traces alone to the endpoint for them, under the name that it is given", async () => {
    await using receiver = await otlpReceiver();
    const { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, ...env } = receiver.env;
    const program = await started({
      ...env,
      OTEL_METRICS_EXPORTER: "",
      OTEL_LOGS_EXPORTER: "",
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${endpoint}/v1/traces`,
      OTEL_RESOURCE_ATTRIBUTES: "service.name=shop,deployment.environment.name=test",
    });
    await publish();
    await eventually("its span comes", () => receiver.spans.some(({ name }) => name === `process ${subject}`));
    expect(new Set(receiver.spans.map(({ service }) => service))).toEqual(new Set(["shop"]));
    program.child.kill("SIGTERM");
    expect((await program.ended).status).toBe(0);
    expect(receiver.metrics.size).toBe(0);
  });

  const withoutPackages = (args: readonly string[], env: Readonly<Record<string, string>>): Program => {
    const preloaded = pathToFileURL(nodeProgram("test/cli/programs/without-opentelemetry.ts").file).href;
    const { execArgv, file } = nodeProgram("src/cli/main.ts");
    const command = [...execArgv, "--import", preloaded, file, ...args];
    return startCommand(process.execPath, command, { env, stdin: "ignore" });
  };

  it.each([
    ["serve", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"],
    ["dev", "OTEL_METRICS_EXPORTER", "otlp"],
  ])("refuses to start %s with %s if the packages are missing", async (command, variable, value) => {
    const { status, stdout, stderr } = await withoutPackages([command], { [variable]: value }).ended;
    expect(status).toBe(errorTable.not_supported.exitStatus);
    expect(stdout).toBe("");
    expect(stderr).toContain(`${variable} asks for an export by OpenTelemetry`);
    expect(stderr).toContain("`npm install @opentelemetry/api @opentelemetry/sdk-node`, or unset");
  });

  it("needs no package without an export", async () => {
    const args = ["serve", "--listen", "127.0.0.1:0", "--database-url", database.url];
    const program = withoutPackages(args, { OTEL_EXPORTER_OTLP_ENDPOINT: "http://x", OTEL_SDK_DISABLED: "true" });
    await program.firstLine;
    program.child.kill("SIGTERM");
    expect((await program.ended).status).toBe(0);
  });
});

describe("what the variables ask for", () => {
  it.each<[Record<string, string>, traces: string | undefined, metrics: string | undefined]>([
    [{}, undefined, undefined],
    [{ OTEL_SERVICE_NAME: "x", OTEL_EXPORTER_OTLP_HEADERS: "a=b" }, undefined, undefined],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: " " }, undefined, undefined],
    [{ OTEL_EXPORTER_OTLP_ENDPOINT: "http://x" }, "OTEL_EXPORTER_OTLP_ENDPOINT", undefined],
    [{ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://x" }, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", undefined],
    [{ OTEL_TRACES_EXPORTER: "otlp" }, "OTEL_TRACES_EXPORTER", undefined],
    [{ OTEL_TRACES_EXPORTER: "none", OTEL_EXPORTER_OTLP_ENDPOINT: "http://x" }, undefined, undefined],
    [{ OTEL_TRACES_EXPORTER: "none", OTEL_METRICS_EXPORTER: "otlp" }, undefined, "OTEL_METRICS_EXPORTER"],
    [{ OTEL_METRICS_EXPORTER: "none", OTEL_TRACES_EXPORTER: "otlp" }, "OTEL_TRACES_EXPORTER", undefined],
    [{ OTEL_SDK_DISABLED: "True", OTEL_TRACES_EXPORTER: "otlp", OTEL_METRICS_EXPORTER: "otlp" }, undefined, undefined],
    [{ OTEL_SDK_DISABLED: "false", OTEL_TRACES_EXPORTER: "otlp" }, "OTEL_TRACES_EXPORTER", undefined],
  ])("of %o are traces by %s, metrics by %s", (environment, traces, metrics) => {
    expect(wantedExports(environment)).toEqual({ traces, metrics });
  });
});

it("masks the values of headers, as given and decoded, and passwords of URLs", () => {
  const environment = {
    OTEL_EXPORTER_OTLP_HEADERS: "a=k%20ey,b=key1",
    OTEL_EXPORTER_OTLP_METRICS_HEADERS: "c=key",
    OTEL_SERVICE_NAME: "shop",
  };
  const text = 'Header "a" has invalid value (k ey), k%20ey, key1, key of shop, http://u:p@host/x';
  expect(withoutHeaders(text, environment)).toBe(
    'Header "a" has invalid value (***), ***, ***, *** of shop, http://***@host/x',
  );
});
