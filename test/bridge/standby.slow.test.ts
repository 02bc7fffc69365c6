/**
 * A primary and a standby, a server beside each: subscriptions run on the primary alone, whichever that is, the
 * role of each is told over NATS, and what makes and ends subscriptions is refused on the standby.
 */
import { connect, type Msg, nuid } from "@nats-io/transport-node";
import pg from "pg";
import { expect, it } from "vitest";
import { type HawserServer, serve } from "../../src/nats/serve/index.js";
import { install } from "../../src/operating/installation/index.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { errorOf } from "./support/binding-world.js";

/** Error of nats_subscribe and its like on a hot standby. */
async function areRefused(standbyUrl: string): Promise<void> {
  const client = new pg.Client(standbyUrl);
  await client.connect();
  try {
    for (const call of [
      "nats_subscribe('s', 'answer')",
      "nats_unsubscribe('s', 'answer')",
      "litmus_pgnats_register_responder('s', 'answer')",
      "litmus_pgnats_unregister_responder('s')",
    ]) {
      expect(await errorOf(client, `SELECT ${call}`), call).toMatchObject({
        code: "25006",
        message: `${call.slice(0, call.indexOf("("))}: this server is a standby`,
        hint: expect.stringContaining("primary"),
      });
    }
  } finally {
    await client.end();
  }
}

it("subscriptions and responders are shown on both servers, and refused on the standby; they run on the primary, also on the one that was a standby; notices say who is what", async () => {
  await using servers = await startPrimaryAndStandby();
  const { primary, standby } = servers;
  const prefix = `t${nuid.next()}`;
  const nats = await connect({ servers: testNatsUrl() });
  const notices: Msg[] = [];
  nats.subscribe(`${prefix}.notices`, { callback: (_error, message) => void notices.push(message) });
  await nats.flush();
  const { hostname, port } = new URL(testNatsUrl());
  await install({ databaseUrl: primary.url });
  await onServer(
    primary.url,
    `CREATE TABLE got (payload text, at inet DEFAULT inet_server_addr(), port int DEFAULT inet_server_port())`,
    `CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql
       AS $$INSERT INTO got (payload) SELECT convert_from(payload, 'UTF8') WHERE payload <> ''$$`,
    `CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT inet_server_port()::text::bytea$$`,
    `SELECT hawser.set_nats_server('${JSON.stringify({ host: hostname, port, notify_subject: `${prefix}.notices` })}')`,
    `SELECT nats_subscribe('${prefix}.in', 'capture')`,
    `SELECT litmus_pgnats_register_responder('${prefix}.rpc', 'answer')`,
  );
  await servers.caughtUp();
  expect(await rowsOf(standby.url, "SELECT * FROM pgnats.subscriptions")).toEqual([
    { subject: `${prefix}.in`, callback: "public.capture(bytea)" },
  ]);
  await areRefused(standby.url);

  const notice = (status: string, url: string): string =>
    JSON.stringify({
      status,
      listen_adresses: ["127.0.0.1"],
      listen_addresses: ["127.0.0.1"],
      port: Number(new URL(url).port),
      name: null,
    });
  const told = async (...expected: string[]): Promise<void> => {
    await eventually("the notices are told", () => notices.length >= expected.length);
    expect(notices.splice(0).map((message) => message.string())).toEqual(expected);
  };
  const stored = (payload: string, url: string) =>
    eventually(`${payload} is stored`, async () => {
      nats.publish(`${prefix}.in`, payload);
      return (await rowsOf(url, `SELECT FROM got WHERE payload = '${payload}'`)).length > 0;
    });
  const answeredBy = async (url: string): Promise<void> => {
    const { port: expected } = new URL(url);
    await eventually("it answers", async () => {
      const reply = await nats.request(`${prefix}.rpc`, "x", { timeout: 1_000 }).catch(() => undefined);
      return reply?.string() === expected;
    });
    const ports = await Promise.all(
      Array.from({ length: 20 }, () => nats.request(`${prefix}.rpc`, "x", { timeout: 5_000 })),
    );
    expect(new Set(ports.map((reply) => reply.string()))).toEqual(new Set([expected]));
  };

  const beside = (url: string): Promise<HawserServer> => serve({ databaseUrl: url, listen: "127.0.0.1:0" });
  await using first = await beside(primary.url);
  await told(notice("Master", primary.url));
  await using _second = await beside(standby.url);
  await told(notice("Replica", standby.url));
  await stored("before", primary.url);
  await answeredBy(primary.url);

  // A Postgres that dies takes its process with it.
  await first.stop();
  await primary.kill("SIGKILL");
  const promotedAt = performance.now();
  await servers.promote();
  await eventually("the promotion is told", () => notices.length > 0);
  console.info(
    `promotion was told after ${Math.round(performance.now() - promotedAt)} ms, which the promotion itself is a part of`,
  );
  await told(notice("Master", standby.url));
  await stored("after", standby.url);
  await answeredBy(standby.url);
  expect(notices).toEqual([]);
  await nats.close();
});
