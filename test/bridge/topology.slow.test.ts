/**
 * Why docs/operations.md names first the topology in which each `hawser serve` reaches the primary, wherever that is: a
 * switchover under load loses nothing and repeats next to nothing there, and thousands of messages where each process has
 * one server to itself.
 */
import { connect, nuid } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { serve } from "../../src/nats/serve/index.js";
import { install } from "../../src/operating/installation/index.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { type PrimaryAndStandby, startPrimaryAndStandby } from "../support/standby.js";

const perSecond = 1_000;
/** So many have run before the switchover; a process repeats them all if it does not know that they have. */
const before = 4_000;
const takeoverBufferMs = 600_000;
const downMs = 1_000;
/** Limit for repeated messages: one batch whose COMMIT was not answered. */
const mostRepeated = 1_000;

/** Runs a switchover that loses no message. Resolves with the number of messages that ran again. */
async function repeatsWith(urlsOf: (servers: PrimaryAndStandby) => readonly string[]): Promise<number> {
  await using servers = await startPrimaryAndStandby();
  const subject = `topology.${nuid.next()}`;
  const { hostname: host, port } = new URL(testNatsUrl());
  await install({ databaseUrl: servers.primary.url });
  await onServer(
    servers.primary.url,
    "CREATE TABLE got (number bigint NOT NULL)",
    `CREATE FUNCTION take(payload bytea) RETURNS void LANGUAGE sql
       AS $$INSERT INTO got SELECT convert_from(payload, 'UTF8')::bigint$$`,
    `SELECT hawser.set_nats_server('${JSON.stringify({ host, port })}')`,
    `SELECT nats_subscribe('${subject}', 'take')`,
  );
  await servers.caughtUp();
  const [first, second] = urlsOf(servers);
  await using _first = await serve({ databaseUrl: first, listen: "127.0.0.1:0", tuning: { takeoverBufferMs } });
  await using _second = await serve({ databaseUrl: second, listen: "127.0.0.1:0", tuning: { takeoverBufferMs } });
  const nats = await connect({ servers: testNatsUrl() });
  let sent = 0;
  const counts = async (): Promise<{ all: number; different: number }> => {
    const [row] = await rowsOf(
      servers.primary.url,
      "SELECT count(*)::integer AS all, count(DISTINCT number)::integer AS different FROM got",
    );
    return row as { all: number; different: number };
  };
  // What is published before somebody listens does not count.
  await eventually("it is received", async () => {
    nats.publish(subject, "0");
    return (await counts()).all > 0;
  });
  const timer = setInterval(() => {
    for (let n = 0; n < perSecond / 50; n++) nats.publish(subject, String(++sent));
  }, 20);
  try {
    const ran = (number: number) =>
      eventually(`${number} has run`, async () => (await counts()).different > number, 60_000);
    await ran(before);
    await servers.switchOver(downMs);
    await ran(sent + perSecond);
  } finally {
    clearInterval(timer);
  }
  await nats.flush();
  await eventually("each has run", async () => (await counts()).different === sent + 1, 60_000);
  const [zeros] = await rowsOf(servers.primary.url, "SELECT count(*)::integer AS count FROM got WHERE number = 0");
  await nats.close();
  const { all } = await counts();
  return all - (zeros!["count"] as number) - sent;
}

it("a switchover repeats one batch at most if each process reaches the primary, and seconds of messages if each has a server of its own", {
  timeout: 240_000,
}, async () => {
  const reachingPrimary = repeatsWith(({ primary, standby }) => {
    const { host } = new URL(primary.url);
    const both = primary.url.replace(host, `${host},${new URL(standby.url).host}`);
    return [both, both];
  });
  const besideOne = repeatsWith(({ primary, standby }) => [primary.url, standby.url]);
  const [reachPrimary, beside] = await Promise.all([reachingPrimary, besideOne]);
  console.info(
    `repeats in a switchover at ${perSecond}/s: ${reachPrimary} reaching the primary, ${beside} beside a server each`,
  );
  expect(reachPrimary).toBeLessThanOrEqual(mostRepeated);
  expect(beside).toBeGreaterThan(mostRepeated);
});
