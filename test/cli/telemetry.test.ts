/**
 * Export of traces and metrics by `hawser serve`, which the variables of OpenTelemetry turn on.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { version } from "../../src/foundation/runtime/index.js";
import { wantedExports, withoutHeaders } from "../../src/operating/cli/telemetry.js";
import { otlpReceiver } from "../otel/support/otlp-receiver.js";
import { testDatabase, testNatsUrl } from "../support/database.js";
import { onServer } from "../support/on-server.js";
import { slowDescribe } from "../support/slow-it.js";
import { jsonLines, startHawser } from "./support/hawser.js";
import { parentSpanId, publishTraced, subscribeFunction, traceId } from "./support/traced.js";

const secret = "s3cret/of:the-collector";

slowDescribe("hawser serve", () => {
  let database: Awaited<ReturnType<typeof testDatabase>>;
  let subject: string;

  beforeAll(async () => {
    database = await testDatabase();
    const { hostname: host, port } = new URL(testNatsUrl());
    await onServer(database.url, `SELECT hawser.set_nats_server('${JSON.stringify({ host, port })}')`);
    subject = `exported_${database.name}`;
    await subscribeFunction(database.url, subject);
  });
  afterAll(() => database.drop());

  it("exports the spans and metrics that it has, at its end at the latest, and logs no secret", async () => {
    await using receiver = await otlpReceiver();
    const env = {
      ...receiver.env,
      // Longer than the test.
      OTEL_BSP_SCHEDULE_DELAY: "600000",
      OTEL_METRIC_EXPORT_INTERVAL: "600000",
      OTEL_METRICS_EXPORTER: "otlp",
      OTEL_EXPORTER_OTLP_HEADERS: `authorization=Bearer%20${encodeURIComponent(secret)}`,
      OTEL_LOG_LEVEL: "debug",
    };
    const program = startHawser(["serve", "--listen", "127.0.0.1:0"], { databaseUrl: database.url, env });
    await program.firstLine;
    await publishTraced(database.url, subject);
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
    expect(span).toMatchObject({ service: "hawser-serve", traceId, parentSpanId });
    expect(receiver.metrics).toContain("hawser_bridge_messages_committed_total");
    expect(receiver.metrics).toContain("hawser_bridge_batch_duration_seconds");
    for (const headers of receiver.requestHeaders) expect(headers.authorization).toBe(`Bearer ${secret}`);
    const [resource] = receiver.resources;
    expect(resource).toMatchObject({ "service.version": version, "service.instance.id": expect.any(String) });
    // The command line has the database's URL.
    expect(JSON.stringify(receiver.resources)).not.toContain("postgres://");
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
