/**
 * The two examples of NATS to SQL in the documentation of the extension that people come from, run as they are written
 * there, beside `hawser serve` in processes of its own, and driven by a client of NATS that knows nothing of ours.
 */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { subscribers } from "../faults/support/nats-monitor.js";
import { ServeProcess } from "../faults/support/serve-process.js";
import { type TestDatabase, testDatabase } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer } from "../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { isElsewhere, statementsOf, withOptions } from "./seed-sql/statements.js";

let edge: TestNatsServer;
let database: TestDatabase;
let client: pg.Client;
let nats: NatsConnection;

beforeAll(async () => {
  edge = await startNatsServer({ monitor: true });
  database = await testDatabase();
  client = new pg.Client(database.url);
  await client.connect();
  nats = await connect({ servers: edge.url });
});
afterAll(async () => {
  await nats?.close();
  await client?.end();
  await database?.drop();
  await edge?.[Symbol.asyncDispose]();
});

/** The first column of the first row. */
const value = async (sql: string): Promise<unknown> => Object.values((await client.query(sql)).rows[0])[0];

/** Whether somebody answers the subject; what does is asked. */
async function answer(subject: string, payload: string): Promise<string | undefined> {
  const reply = await nats.request(subject, payload, { timeout: 5_000 }).catch(() => undefined);
  return reply?.string();
}

/** Resolves when so many processes are subscribed: the server takes a moment to hear of a new one, or of the end of one. */
async function heardBy(processes: number, subject: string): Promise<void> {
  const isSo = async (): Promise<boolean> => (await subscribers(edge, subject)) === processes;
  await eventually(`${processes} processes are subscribed to ${subject}`, isSo);
}

describe("the documentation's example", { timeout: 120_000 }, () => {
  it("stores what an independent client publishes, until it is unsubscribed, also after a restart", async () => {
    await using serve = await ServeProcess.start(database.url);
    const statements = statementsOf("13-example.sql").filter((statement) => !isElsewhere(statement));
    const subject = "devicehub.alias.<mydevice>.<mytag>";
    let isVerified = false;
    for (const statement of statements) {
      const reachable = statement.includes("CREATE SERVER")
        ? withOptions(statement, { host: edge.host, port: `${edge.port}` })
        : statement;
      const { rows } = await client.query(reachable);
      if (statement.includes("nats_subscribe")) {
        await heardBy(1, subject);
        for (const n of [1, 2, 3]) nats.publish(subject, `{"value": ${n}}`);
        await eventually("all are stored", async () => {
          return (await value("SELECT count(*) FROM litmus_pgnats_test_messages WHERE payload LIKE '{%'")) === "3";
        });
        await serve.crash();
        await heardBy(0, subject);
        await serve.start();
        await heardBy(1, subject);
        nats.publish(subject, '{"value": "again"}');
        await eventually("it goes on after a restart", async () => {
          return (await value("SELECT count(*) FROM litmus_pgnats_test_messages WHERE payload LIKE '%again%'")) === "1";
        });
      }
      if (statement.includes("SELECT * FROM litmus_pgnats_test_messages")) {
        isVerified = true;
        const payloads = rows.map(({ payload }) => payload);
        expect(payloads).toEqual(expect.arrayContaining(['{"value": 1}', '{"value": 2}', '{"value": 3}']));
        expect(rows[0]).toEqual({ received_at: expect.any(Date), payload: '{"value": "again"}' });
      }
    }
    expect(isVerified).toBe(true);
    await heardBy(0, subject);
    await client.query("DROP SERVER nats_fdw_server_test");
  });

  it("of a responder answers an independent client, over two processes, one of which is killed", async () => {
    await defineServer(client, edge.url);
    await using first = await ServeProcess.start(database.url);
    await using _second = await ServeProcess.start(database.url);
    for (const statement of statementsOf("09-example-responder.sql")) await client.query(statement);
    await heardBy(2, "litmus.test.responder");
    for (let n = 0; n < 50; n++) expect(await answer("litmus.test.responder", `${n}`)).toBe(`echo ${n}`);
    await first.crash();
    await heardBy(1, "litmus.test.responder");
    for (let n = 0; n < 50; n++) expect(await answer("litmus.test.responder", `${n}`)).toBe(`echo ${n}`);
    await client.query("SELECT litmus_pgnats_unregister_responder('litmus.test.responder')");
    await eventually("nobody answers", async () => (await answer("litmus.test.responder", "ping")) === undefined);
  });
});
