/**
 * A NATS server whose user may do nothing but subscribe, as on Litmus Edge: subscriptions work, and what is refused is told
 * once each.
 */
import { connect, headers } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { slowIt } from "../support/slow-it.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let server: TestNatsServer;
let world: BridgeWorld;

beforeAll(async () => {
  server = await startNatsServer({
    config: `
      authorization { users: [
        { user: "edge", password: "edge", permissions: {
          publish: { deny: ">" }
          subscribe: { allow: ["data.>"], deny: ["data.secret.>", "_INBOX.>", "$SRV.>", "$JS.>"] } } }
        { user: "all", password: "all" }
      ] }
      no_auth_user: all`,
  });
  world = await bridgeWorld({
    natsUrl: server.url,
    serverOptions: { username: "edge", password: "edge" },
    sql: `
      CREATE TABLE got (payload bytea);
      CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO got SELECT payload WHERE payload <> ''$$;
      CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT payload$$;
    `,
  });
});
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
});

const warnings = () => world.log.lines.filter(({ level }) => level === "warn" || level === "error");

// One story: what the server permits changes, and all that was refused is in one log.
describe("with no permission but to subscribe", { shuffle: false }, () => {
  it("subscriptions run their functions, also after reconnecting", async () => {
    await world.subscribe("data.a.*", "capture(bytea)", "data.a.x");
    world.nats.publish("data.a.x", "one");
    await world.counts(1, "SELECT count(*) FROM got");
    await world.value("SELECT litmus_pgnats_reload_conf_force()");
    world.nats.publish("data.a.x", "two");
    await world.counts(2, "SELECT count(*) FROM got");
  });

  it("the refused role-change notice is reported once, and nothing else is tried", async () => {
    const told = () => warnings().map(({ message, details }) => `${message} ${JSON.stringify(details)}`);
    const ofNotices = () => told().filter((line) => line.includes("role-change notices"));
    await eventually("it is told", () => ofNotices().length > 0);
    expect(ofNotices()).toHaveLength(1);
    expect(told().filter((line) => !/pgnats\.postgresql\.replication\.status/.test(line))).toEqual([]);
  });

  slowIt("a subscription that is not permitted is reported once, and does not disturb the others", async () => {
    const before = warnings().length;
    await world.client.query("SELECT nats_subscribe('data.secret.x', 'capture')");
    await eventually("it is told", () => warnings().length > before);
    await world.value("SELECT litmus_pgnats_reload_conf_force()");
    await world.value("SELECT litmus_pgnats_reload_conf_force()");
    world.nats.publish("data.a.x", "three");
    await world.counts(3, "SELECT count(*) FROM got");
    const told = warnings()
      .slice(before)
      .map(({ message, details }) => `${message} ${JSON.stringify(details)}`);
    expect(told).toEqual([
      expect.stringMatching(/^the NATS server does not permit a subscription, .*data\.secret\.x/),
      expect.stringMatching(/^the NATS server does not permit an operation \{.*data\.secret\.x/),
    ]);
    await world.client.query("SELECT nats_unsubscribe('data.secret.x', 'capture')");
  });

  it("a subscription starts when it is permitted later and a reload is forced", async () => {
    await world.client.query("SELECT nats_subscribe('later.x', 'capture')");
    await eventually("it is told", () => warnings().some(({ details }) => JSON.stringify(details).includes("later.x")));
    await server.reload(`
      authorization { users: [
        { user: "edge", password: "edge", permissions: { publish: { deny: ">" }, subscribe: { allow: [">"] } } }
        { user: "all", password: "all" }
      ] }
      no_auth_user: all`);
    await world.value("SELECT litmus_pgnats_reload_conf_force()");
    await using independent = await connectTo(server.url);
    await eventually("it is called", async () => {
      independent.nats.publish("later.x", "permitted", { headers: headers() });
      await independent.nats.flush();
      return (await world.count("SELECT count(*) FROM got WHERE payload = 'permitted'")) > 0;
    });
  });

  it("a responder that may not answer does not disturb subscriptions", async () => {
    await world.client.query("SELECT litmus_pgnats_register_responder('data.rpc', 'answer')");
    await using independent = await connectTo(server.url);
    await eventually("it is asked, and may not answer", async () => {
      return independent.nats.request("data.rpc", "x", { timeout: 200 }).then(
        () => false,
        (error: Error) => /timeout/i.test(error.message),
      );
    });
    const before = await world.count("SELECT count(*) FROM got");
    independent.nats.publish("data.a.x", "four");
    await eventually("it has run", async () => (await world.count("SELECT count(*) FROM got")) > before);
  });
});

async function connectTo(url: string) {
  const nats = await connect({ servers: url });
  return { nats, [Symbol.asyncDispose]: () => nats.close() };
}
