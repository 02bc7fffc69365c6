/**
 * Errors that sessions get when the connection to NATS is lost or replaced between their calls.
 */

import type { Msg } from "@nats-io/transport-node";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { natsConnectTimeoutMs } from "../../../src/nats/connections/connect.js";
import { eventually } from "../../support/eventually.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { natsClient } from "../../support/nats-client.js";
import { startNatsServer, type TestNatsServer } from "../../support/nats-server.js";

let server: TestNatsServer;
let gateway: TestGateway;
beforeAll(async () => {
  server = await startNatsServer({ jetStream: true });
  gateway = await testGateway({ natsUrl: server.url, tuning: { natsWaitMs: 3000 } });
});
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

let session: pg.Client;
beforeEach(async () => {
  session = await gateway.connect();
  return () => session.end();
});

const errorOf = (sql: string) => session.query(sql).catch((error: pg.DatabaseError) => error);

describe("nats_flush()", () => {
  const publish = (by: pg.Client) => by.query("SELECT nats_publish_text('lost.subject', 'x')");
  const flush = (by: pg.Client) => by.query("SELECT nats_flush()");
  const reconnect = () => gateway.client.query("SELECT litmus_pgnats_reload_conf_force()");
  const lost = {
    code: "08006",
    message: expect.stringContaining("was lost after this session published a message and before this flush"),
    hint: expect.stringContaining("nats_flush()"),
  };

  it("raises nothing if the connection was replaced in order, which loses nothing", async () => {
    await publish(session);
    await reconnect();
    await publish(session);
    await reconnect();
    await flush(session);
  });

  it("raises once that messages may have been lost with an older connection, to those who have published and not flushed", async () => {
    const [unflushed, onBoth, replaced, flushed, silent] = await Promise.all(
      Array.from({ length: 5 }, () => gateway.connect()),
    );
    const all = [unflushed!, onBoth!, replaced!, flushed!, silent!];
    for (const one of all) await flush(one);
    await publish(flushed!);
    await flush(flushed!);
    await publish(replaced!);
    await reconnect();
    // What nobody gets.
    server.signal("SIGSTOP");
    await publish(unflushed!);
    await publish(onBoth!);
    await publish(replaced!);
    await server.kill();
    await server.restart();
    await eventually("there is a connection again", () =>
      flush(gateway.client).then(
        () => true,
        () => false,
      ),
    );
    await publish(onBoth!);
    for (const one of [unflushed!, onBoth!, replaced!]) await expect(flush(one)).rejects.toMatchObject(lost);
    for (const one of all) {
      await flush(one);
      await publish(one);
      await flush(one);
      await one.end();
    }
  });
});

describe("a request that is running", () => {
  it.each([
    ["the connection is made anew by force", "SELECT litmus_pgnats_reload_conf_force()"],
    ["the options change", 'SELECT hawser.set_nats_server(\'{"host":"localhost","port":"PORT"}\')'],
  ])("gets its answer although %s", async (_, sql) => {
    await using responder = await natsClient({ servers: server.url });
    const questions: Msg[] = [];
    responder.subscribe("slow.question", { callback: (_error, question) => void questions.push(question) });
    await responder.flush();
    const answer = session.query(
      "SELECT convert_from(nats_request_text('slow.question', 'x', 20000), 'UTF8') AS answer",
    );
    await eventually("the question has come", () => questions.length === 1);
    await gateway.client.query(sql.replace("PORT", `${server.port}`));
    await gateway.client.query("SELECT litmus_pgnats_reload_conf()");
    questions[0]!.respond("late");
    expect((await answer).rows).toEqual([{ answer: "late" }]);
  });
});

describe("a call with a short time limit just after the loss", () => {
  it("gets the error that there is no connection, and why", async () => {
    await session.query("SELECT nats_flush()");
    await server.kill();
    try {
      let error: object = {};
      await eventually("the loss is noticed", async () => {
        error = await errorOf("SELECT nats_request_text('nobody', 'x', 100)");
        expect(error).not.toMatchObject({ code: "XX000" });
        return "code" in error && error.code === "08003";
      });
      expect(error).toMatchObject({
        message: expect.stringContaining("no connection to the NATS server"),
        detail: expect.stringMatching(/./),
        hint: expect.stringMatching(/./),
      });
    } finally {
      await server.restart();
    }
  });
});

describe("a reload that takes too long", () => {
  it("fails with the reason, with a code of its own", async () => {
    await session.query("SELECT nats_flush()");
    server.signal("SIGSTOP");
    try {
      // Long enough to read the definition, and shorter than an attempt to connect.
      const callTimeoutMs = 800;
      await using slow = await testGateway({ serverOptions: false, callTimeoutMs });
      expect(natsConnectTimeoutMs).toBeGreaterThan(callTimeoutMs);
      await slow.client.query("SELECT hawser.set_nats_server($1)", [
        JSON.stringify({ host: server.host, port: `${server.port}` }),
      ]);
      const error = await slow.errorOf("SELECT litmus_pgnats_reload_conf()");
      // A server that hangs would hold up the end.
      server.signal("SIGCONT");
      expect([error.code, error.message]).toEqual(["NA001", expect.stringContaining(`${callTimeoutMs} ms`)]);
    } finally {
      server.signal("SIGCONT");
    }
  });
});
