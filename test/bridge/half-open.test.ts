/**
 * The connection of the leader to NATS is dead, and nobody has noticed yet.
 */
import { expect, it } from "vitest";
import { Serve } from "../../src/serve/index.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer, testGateway } from "../support/gateway.js";
import { silentNetwork } from "./support/silent-network.js";

it("what it does not receive counts as not done: the next leader has it", async () => {
  await using net = await silentNetwork(testNatsUrl());
  await using gateway = await testGateway({ serverOptions: false });
  await gateway.client.query(`
    CREATE TABLE done (n int);
    CREATE FUNCTION note(payload bytea) RETURNS void LANGUAGE sql AS $$
      INSERT INTO done SELECT convert_from(payload, 'UTF8')::int $$;
    SELECT nats_subscribe('half.open.${gateway.database.name}', 'note')`);
  await defineServer(gateway.client, net.url);
  const subject = `half.open.${gateway.database.name}`;
  const count = async (sql: string): Promise<number> => Number(await gateway.value(sql));
  await eventually("it leads", async () => (await count("SELECT epoch FROM hawser.bridge_lead")) > 0);
  await eventually("it is subscribed", async () => {
    gateway.nats.publish(subject, "0");
    return (await count("SELECT count(*) FROM done")) > 0;
  });
  net.freeze();
  await using other = await Serve.start({
    databaseUrl: gateway.database.url,
    gatewayListen: "127.0.0.1:0",
    monitorListen: "127.0.0.1:0",
  });
  await eventually("the other one receives", async () => {
    gateway.nats.publish(subject, "0");
    const metrics = await (await fetch(`http://${other.monitorAddress}/metrics`)).text();
    return /^hawser_bridge_messages_received_total\{.*\} [1-9]/m.test(metrics);
  });
  const beats = await count("SELECT beat FROM hawser.bridge_lead");
  let published = 0;
  await eventually("the leader has said several times what it has done", async () => {
    gateway.nats.publish(subject, `${++published}`);
    await gateway.nats.flush();
    return (await count("SELECT beat FROM hawser.bridge_lead")) > beats + 4;
  });
  await gateway.serve.stop();
  gateway.nats.publish(subject, `${++published}`);
  await eventually("another one leads, and has run the last one", async () => {
    return (await count(`SELECT count(*) FROM done WHERE n = ${published}`)) > 0;
  });
  const missing = `SELECT count(*) FROM generate_series(1, ${published}) AS n WHERE n NOT IN (SELECT d.n FROM done AS d)`;
  expect(published).toBeGreaterThan(20);
  expect(await count(missing)).toBe(0);
});
