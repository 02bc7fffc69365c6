/**
 * An --executor-url that leads to another database than that of `hawser serve`: nothing is run there, it is said why, and
 * all goes on by itself when it leads to the right one.
 */
import { createServer, type Socket, connect as tcpConnect } from "node:net";
import { inspect } from "node:util";
import { connect, nuid } from "@nats-io/transport-node";
import pg from "pg";
import { describe, expect, it, onTestFinished } from "vitest";
import { Serve } from "../../src/serve/index.js";
import { install } from "../../src/store/index.js";
import { ownPostgres } from "../faults/support/own-postgres.js";
import { testDatabase, testNatsUrl, testServerUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer } from "../support/gateway.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { type KeptLog, keptLog } from "./role/log.js";

/** Postgres, with a function that is subscribed, and nobody who serves. */
async function installed() {
  const database = await testDatabase();
  onTestFinished(() => database.drop());
  await install({ databaseUrl: database.url });
  const [login] = await rowsOf(database.url, "SELECT user_name, password FROM hawser.executor_login");
  const executorUrl = new URL(database.url);
  executorUrl.username = String(login!["user_name"]);
  executorUrl.password = String(login!["password"]);
  return { database, executorUrl };
}

/** Serves it by this login, with a subscribed function. */
async function served(database: { readonly url: string }, executorUrl: string) {
  const client = new pg.Client(database.url);
  await client.connect();
  onTestFinished(() => client.end());
  await client.query(`
    CREATE TABLE got (payload text);
    CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO got SELECT convert_from(payload, 'UTF8')$$;
  `);
  await defineServer(client, testNatsUrl());
  const subject = `elsewhere.${nuid.next()}`;
  await client.query("SELECT nats_subscribe($1, 'capture')", [subject]);
  const log = keptLog();
  const serve = await Serve.start({
    databaseUrl: database.url,
    executorUrl,
    gatewayListen: "127.0.0.1:0",
    // What waits at the end cannot be run.
    stopDeadlineMs: 100,
    logger: log.logger,
  });
  onTestFinished(() => serve.stop());
  const nats = await connect({ servers: testNatsUrl() });
  onTestFinished(() => nats.close());
  const got = async () => (await client.query<{ payload: string }>("SELECT payload FROM got")).rows;
  return { client, log, nats, subject, got };
}

/** What was told of sessions that could not be had, at the level. */
const refusals = ({ lines }: KeptLog, wanted: string) =>
  lines.filter(({ level, message }) => level === wanted && message.includes("no session with Postgres"));

/** Leads to one server or the other. */
async function switchable(target: URL) {
  const sockets = new Set<Socket>();
  let { hostname: host, port } = target;
  const server = createServer((near) => {
    const far = tcpConnect({ host, port: Number(port), noDelay: true });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
      from.pipe(to);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return {
    port: String((server.address() as { port: number }).port),
    leadTo(next: URL) {
      ({ hostname: host, port } = next);
    },
  };
}

describe("an executor's login", () => {
  it("that reaches another database, also one with Hawser in it, is refused, and told once with both names", async () => {
    const [own, other] = [await installed(), await installed()];
    const { log, nats, subject, got } = await served(own.database, other.executorUrl.href);
    await eventually("it has been tried again and again", () => {
      nats.publish(subject, "never");
      return refusals(log, "debug").length > 2;
    });
    const told = refusals(log, "warn");
    expect(told).toHaveLength(1);
    const { hostname, port } = new URL(testServerUrl());
    const place = (name: string) => `the database "${name}" of the server at ${hostname}:${port}, started at `;
    expect(told[0]!.details).toEqual({
      code: "executor_login",
      problem: expect.stringMatching(
        new RegExp(
          `^the login "${other.executorUrl.username}", .*, has reached ${place(other.database.name)}\\S+, and not ${place(own.database.name)}\\S+, which \`hawser serve\` works for$`,
        ),
      ),
      hint: "Let --executor-url name the server and the database that --database-url names, with the other login.",
    });
    expect(inspect(log.lines, { depth: 9, maxArrayLength: null })).not.toContain(other.executorUrl.password);
    expect(await got()).toEqual([]);
  });

  it("that reaches another server, as after a failover, is refused until it reaches the right one", async () => {
    const { database, executorUrl } = await installed();
    await using away = await ownPostgres();
    await onServer(
      away.url,
      `CREATE DATABASE ${database.name}`,
      `CREATE ROLE ${executorUrl.username} LOGIN PASSWORD '${executorUrl.password}'`,
    );
    const way = await switchable(new URL(away.url));
    const right = new URL(executorUrl);
    executorUrl.hostname = "127.0.0.1";
    executorUrl.port = way.port;
    const { log, nats, subject, got } = await served(database, executorUrl.href);
    let sent = 0;
    await eventually("it is refused", () => {
      nats.publish(subject, `${++sent}`);
      return refusals(log, "warn").length > 0;
    });
    expect(refusals(log, "warn")[0]!.details).toMatchObject({ code: "executor_login" });
    expect(await got()).toEqual([]);
    way.leadTo(right);
    const before = sent;
    await eventually("messages are handled, those that have waited, too", async () => (await got()).length > 0);
    nats.publish(subject, `${++sent}`);
    await eventually("further ones are", async () => (await got()).some(({ payload }) => payload === `${sent}`));
    const numbers = (await got()).map(({ payload }) => Number(payload));
    // The subscription was live before the last of those that have waited.
    expect(numbers).toContain(before);
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, n) => sent - numbers.length + 1 + n));
    expect(refusals(log, "warn")).toHaveLength(1);
  });
});
