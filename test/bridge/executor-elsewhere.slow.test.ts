/**
 * An --executor-url that leads to another server than that of `hawser serve`.
 */
import { expect, it } from "vitest";
import { serve } from "../../src/nats/serve/index.js";
import { ownPostgres } from "../faults/support/own-postgres.js";
import { startProxy } from "../store/support/proxy.js";
import { eventually } from "../support/eventually.js";
import { onServer } from "../support/on-server.js";
import { keptLog } from "./role/log.js";
import { bridgeWorld } from "./support/bridge-world.js";

it("a login that reaches another server, as after a failover, is refused until it reaches the right one", async () => {
  await using world = await bridgeWorld({
    sql: `
      CREATE TABLE got (payload text);
      CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql
        AS $$INSERT INTO got SELECT convert_from(payload, 'UTF8') WHERE payload <> ''$$`,
  });
  await world.serve.stop();
  const [login] = await world.rows<{ user_name: string; password: string }>(
    "SELECT user_name, password FROM hawser_bridge_data.executor_login",
  );
  await using away = await ownPostgres();
  await onServer(
    away.url,
    `CREATE DATABASE ${world.database.name}`,
    `CREATE ROLE ${login!.user_name} LOGIN PASSWORD '${login!.password}'`,
  );
  await using way = await startProxy(world.database.url);
  way.leadTo(away.url);
  const url = new URL(way.url);
  url.username = login!.user_name;
  url.password = login!.password;
  const subject = `${world.prefix}.x`;
  await world.client.query("SELECT nats_subscribe($1, 'capture')", [subject]);
  const log = keptLog();
  await using _serve = await serve({
    databaseUrl: world.database.url,
    executorUrl: url.href,
    listen: "127.0.0.1:0",
    logger: log.logger,
  });
  const refusals = () =>
    log.lines.filter(({ level, message }) => level === "warn" && message.includes("no session with Postgres"));
  const got = async () =>
    (await world.rows<{ payload: string }>("SELECT payload FROM got")).map(({ payload }) => Number(payload));
  await eventually("it is refused", () => refusals().length > 0);
  expect(refusals()[0]!.details).toMatchObject({ code: "executor_login" });
  await world.live(subject);
  for (const number of [1, 2, 3]) world.nats.publish(subject, `${number}`);
  await world.nats.flush();
  expect(await got()).toEqual([]);
  way.leadTo(world.database.url);
  await eventually("messages that have waited are handled", async () => (await got()).length === 3);
  world.nats.publish(subject, "4");
  await eventually("further ones are", async () => (await got()).length === 4);
  expect(await got()).toEqual([1, 2, 3, 4]);
  expect(refusals()).toHaveLength(1);
});
