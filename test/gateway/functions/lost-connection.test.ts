/**
 * What sessions are told when the connection to NATS is lost, or replaced, between their calls.
 */
import { connect, type Msg } from "@nats-io/transport-node";
import type pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import { eventually } from "../../support/eventually.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../../support/nats-server.js";

let server: TestNatsServer;
let gateway: TestGateway;
beforeAll(async () => {
  server = await startNatsServer({ jetStream: true });
  gateway = await testGateway({ natsUrl: server.url, natsWaitMs: 3000 });
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
const publish = () => session.query("SELECT nats_publish_text('lost.subject', 'x')");
const flush = () => session.query("SELECT nats_flush()");
const lost = {
  code: "08006",
  message: expect.stringContaining("was lost between a message that this session published and this flush"),
  hint: expect.stringContaining("nats_flush()"),
};

/** Publishes what nobody gets, and resolves when there is another connection. */
async function publishAndLose(): Promise<void> {
  server.signal("SIGSTOP");
  await publish();
  await loseIt();
}

async function loseIt(): Promise<void> {
  await server.kill();
  await server.restart();
  await eventually("there is a connection again", async () => {
    const ready = await gateway.client.query("SELECT nats_flush()").catch(() => undefined);
    return ready !== undefined;
  });
}

describe("nats_flush()", () => {
  it("raises once that messages may have been lost with an older connection", async () => {
    await publish();
    await flush();
    await publishAndLose();
    await expect(flush()).rejects.toMatchObject(lost);
    await flush();
    await publish();
    await flush();
  });

  it("raises it also where the session has published over the new connection since", async () => {
    await publishAndLose();
    await publish();
    await expect(flush()).rejects.toMatchObject(lost);
    await flush();
  });

  it("raises nothing in a session that had flushed, or published nothing, before the loss", async () => {
    await publish();
    await flush();
    const other = await gateway.connect();
    await loseIt();
    await flush();
    await other.query("SELECT nats_flush()");
    await other.end();
  });

  it("raises nothing where the connection was replaced in order, which loses nothing", async () => {
    await publish();
    await gateway.client.query("SELECT litmus_pgnats_reload_conf_force()");
    await publish();
    await gateway.client.query("SELECT litmus_pgnats_reload_conf_force()");
    await flush();
  });

  it("raises it where one connection was replaced in order and the next one was lost", async () => {
    await publish();
    await gateway.client.query("SELECT litmus_pgnats_reload_conf_force()");
    await publishAndLose();
    await expect(flush()).rejects.toMatchObject(lost);
    await flush();
  });
});

describe("a request that is under way", () => {
  it.each([
    ["the connection is made anew by force", "SELECT litmus_pgnats_reload_conf_force()"],
    ["the options change", 'SELECT hawser.set_nats_server(\'{"host":"localhost","port":"PORT"}\')'],
  ])("gets its answer although %s", async (_, sql) => {
    await using responder = await connect({ servers: server.url });
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
  it("is told that there is no connection, and why", async () => {
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
  it("is told why, with a code of its own", async () => {
    await flush();
    server.signal("SIGSTOP");
    try {
      // Long enough to read the definition, and shorter than an attempt to connect.
      const callTimeoutMs = 800;
      await using slow = await testGateway({ serverOptions: false, callTimeoutMs });
      expect(gatewayConstants.natsConnectTimeoutMs).toBeGreaterThan(callTimeoutMs);
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
