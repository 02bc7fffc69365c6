/**
 * Errors on the way to NATS and in NATS: each with its own SQLSTATE and a helpful text.
 */
import { headers } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type HawserServer, serve as startServer } from "../../../src/nats/serve/index.js";
import { eventually } from "../../support/eventually.js";
import { defineServer, patience, type TestGateway, testGateway } from "../../support/gateway.js";
import { startNatsServer } from "../../support/nats-server.js";
import { byPosition, type SampleCall, sampleCalls } from "./every-function.js";
import { Witness } from "./witness.js";

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await testGateway();
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

/** Calls that need NATS. */
const remote = sampleCalls("failing").filter(({ name }) => !name.endsWith("_version"));
const reloads = remote.filter(({ name }) => name.includes("reload"));
const commands = remote.filter(({ name }) => !name.includes("reload"));
const jetStreamOnly = commands.filter(({ given }) => "domain" in given || /stream|_ack$/.test(given["subject"] ?? ""));

/** Makes the calls, each of which has to fail so. */
async function expectEach(on: TestGateway, calls: readonly SampleCall[], error: object): Promise<void> {
  for (const call of calls) expect(await on.errorOf(byPosition(call)), call.name).toMatchObject(error);
}

/** Whether there is a connection. */
const isUp = (on: TestGateway): Promise<boolean> =>
  on.value("SELECT nats_flush()").then(
    () => true,
    () => false,
  );

describe("without a definition of the NATS server", () => {
  it("every function says how to define one (55000)", async () => {
    await using unconfigured = await testGateway({ serverOptions: false });
    await expectEach(unconfigured, commands, {
      code: "55000",
      hint: expect.stringMatching(/CREATE SERVER .* litmus_pgnats_fdw|hawser\.set_nats_server/),
    });
    await expectEach(unconfigured, reloads, { code: "55000" });
    expect((await unconfigured.client.query("SELECT version FROM litmus_pgnats_version()")).rows).toHaveLength(1);
  });
});

describe("without a connection to NATS", () => {
  it("every function says why there is none (08003), and works when there is one again, in the same session", async () => {
    await using server = await startNatsServer({ jetStream: true });
    await using away = await testGateway({ natsUrl: server.url, tuning: { natsWaitMs: 0 } });
    await away.value("SELECT nats_publish_text('a', 'b')");
    const session = await away.value("SELECT pg_backend_pid()");
    await server.stop();
    await eventually("the gateway has noticed", async () => !(await isUp(away)));
    const why = { detail: expect.stringMatching(/./), hint: expect.stringMatching(/./) };
    await expectEach(away, commands, { code: "08003", ...why });
    await expectEach(away, reloads, { code: expect.stringMatching(/^08/) });
    await server.restart();
    await eventually("it works again", () => isUp(away));
    expect(await away.value("SELECT nats_put_text('away', 'k', 'v')")).toBe("1");
    expect(await away.value("SELECT pg_backend_pid()")).toBe(session);
  });

  it("a call waits a moment for the connection that is being made", async () => {
    await using server = await startNatsServer();
    await using waiting = await testGateway({
      natsUrl: server.url,
      callTimeoutMs: 30_000,
      tuning: { natsWaitMs: 60_000 },
    });
    await server.stop();
    const published = waiting.value("SELECT nats_publish_text('a', 'b')").then(
      () => "published",
      (error: { code: string }) => error.code,
    );
    await server.restart();
    // What was under way when the server went may have been lost; nothing else may.
    expect(await published).toMatch(/^(published|08006)$/);
  });
});

describe("without the gateway", () => {
  it("every function says so (08001), and works when there is one again, in the same session", async () => {
    await using gone = await testGateway();
    await gone.value("SELECT nats_publish_text('a', 'b')");
    const fresh = await gone.connect();
    await gone.serve.stop();
    await expectEach(gone, remote, { code: "08001", hint: expect.stringContaining("hawser serve") });
    await expect(fresh.query("SELECT nats_publish_text('a', 'b')")).rejects.toMatchObject({ code: "08001" });
    await using _again = await startServer({
      databaseUrl: gone.database.url,
      listen: "127.0.0.1:0",
      ...patience,
    });
    await gone.value("SELECT nats_publish_text('a', 'b')");
    await fresh.query("SELECT nats_publish_text('a', 'b')");
    await fresh.end();
  });

  it("that was stopped and started again between two calls nothing is noticed", async () => {
    await using restarted = await testGateway();
    const sessions = await Promise.all(Array.from({ length: 5 }, () => restarted.connect()));
    const witness = await Witness.open(restarted.nats, "failing_restart.>");
    let { serve } = restarted as { serve: HawserServer };
    for (let round = 0; round < 3; round++) {
      for (const session of sessions) await session.query("SELECT nats_publish_text('failing_restart.x', 'x')");
      expect(await witness.messages(sessions.length)).toHaveLength(sessions.length);
      await serve.stop();
      serve = await startServer({ databaseUrl: restarted.database.url, listen: "127.0.0.1:0", ...patience });
    }
    await serve.stop();
    for (const session of sessions) await session.end();
  });
});

describe("a request", () => {
  it("without a subscriber fails with NA002, and not by its time limit", async () => {
    for (const [type, payload] of [
      ["text", "'x'"],
      ["json", "'1'"],
      ["jsonb", "'1'"],
      ["binary", "'x'"],
    ]) {
      const sql = `SELECT nats_request_${type}('failing.nobody', ${payload}, 30000)`;
      // By its time limit it were NA001.
      expect(await gateway.errorOf(sql)).toMatchObject({
        code: "NA002",
        message: expect.stringContaining('"failing.nobody"'),
        detail: expect.stringContaining('"failing.nobody"'),
        hint: expect.stringContaining("responder"),
      });
    }
  });

  it("without an answer fails after its time limit (NA001), and says how long it has waited", async () => {
    gateway.nats.subscribe("failing.silent", { callback: () => undefined });
    await gateway.nats.flush();
    for (const timeout of [0, 1, 300]) {
      const error = await gateway.errorOf(`SELECT nats_request_text('failing.silent', 'x', ${timeout})`);
      expect(error).toMatchObject({ code: "NA001", hint: expect.stringContaining("timeout") });
      expect(error.message).toContain('"failing.silent"');
    }
  });

  it("to a service that answers with an error fails with its text (NA000)", async () => {
    const refusal = headers();
    refusal.set("Nats-Service-Error-Code", "418");
    refusal.set("Nats-Service-Error", "no coffee here");
    gateway.nats.subscribe("failing.service", {
      callback: (_error, request) => void request.respond("", { headers: refusal }),
    });
    await gateway.nats.flush();
    const error = await gateway.errorOf("SELECT nats_request_text('failing.service', 'x', 5000)");
    expect(error.code).toBe("NA000");
    expect(error.message).toMatch(/418.*no coffee here/);
    expect(error.detail).toBe("Nats-Service-Error-Code 418");
  });
});

describe("JetStream", () => {
  it("that has no stream for the subject is reported by NA003", async () => {
    for (const name of ["stream", "ack", "stream_batch"]) {
      const payload = name === "stream_batch" ? "ARRAY['x']" : "'x'";
      const error = await gateway.errorOf(`SELECT nats_publish_text_${name}('failing.no.stream', ${payload})`);
      expect(error, name).toMatchObject({ code: "NA003", hint: expect.stringContaining("stream") });
      expect(error.message, name).toContain('"failing.no.stream"');
    }
  });

  it("that is off is reported by NA004, by each function that needs it, and the others work", async () => {
    await using server = await startNatsServer();
    await using core = await testGateway({ natsUrl: server.url });
    expect(jetStreamOnly.length).toBeGreaterThan(20);
    await expectEach(core, jetStreamOnly, {
      code: "NA004",
      message: expect.stringContaining("has no JetStream"),
      hint: expect.stringContaining("JetStream"),
    });
    const witness = await Witness.open(core.nats, "failing.>");
    await core.value("SELECT nats_publish_text('failing.core', 'x')");
    expect((await witness.message()).string()).toBe("x");
    await core.value("SELECT nats_flush()");
    expect(await core.value("SELECT version FROM nats_get_server_info()")).toBe(core.nats.info!.version);
  });

  it("of a domain that is nowhere is reported by NA004 with the domain", async () => {
    const elsewhere = jetStreamOnly.map((call) => ({ ...call, given: { ...call.given, domain: "'nowhere'" } }));
    await expectEach(gateway, elsewhere, { code: "NA004", message: expect.stringContaining('"nowhere"') });
  });
});

describe("a message that is too large", () => {
  it("is reported with the limit (NA005) before it is sent, headers included, and the connection stays", async () => {
    await using server = await startNatsServer({ config: "max_payload: 1000", jetStream: true });
    await using small = await testGateway({ natsUrl: server.url });
    const before = await small.value("SELECT client_id FROM nats_get_server_info()");
    const header = `jsonb_build_object('A', repeat('x', 990))`;
    for (const call of [
      "nats_publish_text('a', repeat('x', 1001))",
      `nats_publish_text('a', repeat('x', 990), NULL, ${header})`,
      "nats_publish_text_batch('a', ARRAY['x', repeat('x', 1001)])",
      "nats_publish_text_stream('a', repeat('x', 1001))",
      "nats_publish_text_ack('a', repeat('x', 1001))",
      "nats_publish_text_stream_batch('a', ARRAY[repeat('x', 1001)])",
      "nats_request_text('a', repeat('x', 1001), 1000)",
      "nats_put_text('a', 'k', repeat('x', 1001))",
    ]) {
      const error = await small.errorOf(`SELECT * FROM ${call}`);
      expect(error, call).toMatchObject({ code: "NA005", hint: expect.stringContaining("max_payload") });
      expect(error.message, call).toContain("1000");
    }
    await small.value("SELECT nats_publish_text('a', repeat('x', 1000))");
    expect(await small.value("SELECT client_id FROM nats_get_server_info()")).toBe(before);
    const file = "SELECT nats_put_file('large', 'f', decode(repeat('00', 5000), 'hex'))";
    await small.value(file);
    expect(await small.value("SELECT length(nats_get_file('large', 'f'))")).toBe(5000);
  });
});

describe("credentials that the server refuses", () => {
  it("are reported by every function (28000) without the secret, and mended by new options", async () => {
    await using server = await startNatsServer({ config: 'authorization { token: "right" }', jetStream: true });
    const wrong = "wrong-and-secret";
    const { hostname, port } = new URL(server.url);
    await using refused = await testGateway({ tuning: { natsWaitMs: 100 } });
    await defineServer(refused.client, server.url, { token: wrong });
    await refused.errorOf("SELECT litmus_pgnats_reload_conf()");
    for (const call of [...commands.slice(0, 5), ...reloads]) {
      const error = await refused.errorOf(byPosition(call));
      expect(error, call.name).toMatchObject({ code: "28000", hint: expect.stringMatching(/./) });
      expect(error.detail, call.name).toContain("option token");
      expect(JSON.stringify({ ...error, message: error.message })).not.toContain(wrong);
    }
    await refused.client.query("SELECT hawser.set_nats_server($1)", [
      JSON.stringify({ host: hostname, port, token: "right" }),
    ]);
    await refused.value("SELECT litmus_pgnats_reload_conf()");
    expect(await refused.value("SELECT auth_required FROM nats_get_server_info()")).toBe(true);
  });
});
