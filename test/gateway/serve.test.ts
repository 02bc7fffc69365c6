/**
 * The server follows the definition of the NATS server in Postgres.
 */

import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { optionsPollMs } from "../../src/operating/installation/foreign-data.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { defineServer, type TestGateway, testGateway } from "../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { withoutTimersAbove } from "../support/timers.js";
import { bridgeLogin, connectionOf, createServer, placeOf, reached } from "./serving.js";

const notConfigured = "55000";
const unauthorized = "28000";

let other: TestNatsServer;
let guarded: TestNatsServer;
let gateway: TestGateway;
/** Warnings of the gateway. */
const complaints: unknown[] = [];
const silent = { debug: () => undefined, info: () => undefined, error: () => undefined };
const logger = { ...silent, warn: (fields: object) => void complaints.push(fields) };

// What changes is found by its notification, as no poll comes.
beforeAll(() => withoutTimersAbove(optionsPollMs - 1));
beforeAll(async () => {
  other = await startNatsServer();
  guarded = await startNatsServer({ config: 'authorization { token: "right" }' });
  gateway = await testGateway({ serverOptions: false, logger });
});

afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await other?.[Symbol.asyncDispose]();
  await guarded?.[Symbol.asyncDispose]();
});

/** Runs a statement, and waits until the functions reach what is expected: a port, or the SQLSTATE of a failure. */
async function follows(statement: string, expected: number | string, at = gateway) {
  await at.client.query(statement);
  let found: Awaited<ReturnType<typeof reached>> | undefined;
  await eventually(`the functions reach ${expected} after: ${statement}`, async () => {
    found = await reached(at);
    return (typeof found === "string" ? found : found.port) === expected;
  });
}

const portOf = (natsUrl: string) => Number(new URL(natsUrl).port);
const main = () => portOf(testNatsUrl());

describe("the server that is defined", () => {
  beforeEach(async () => {
    expect(await reached(gateway)).toBe(notConfigured);
    return async () => {
      await gateway.client.query("DROP SERVER IF EXISTS nats_main CASCADE");
      await follows("SELECT hawser.set_nats_server(NULL)", notConfigured);
    };
  });

  it("may come later, change, go and come back: it is followed by notification", async () => {
    await follows(createServer(testNatsUrl()).replace("pgnats_fdw", "litmus_pgnats_fdw"), main());
    await follows(`ALTER SERVER nats_main OPTIONS (SET port '${other.port}')`, other.port);
    await follows(`ALTER SERVER nats_main OPTIONS (SET port '${main()}', ADD capacity '7')`, main());
    await follows("DROP SERVER nats_main", notConfigured);
    await follows(createServer(other.url), other.port);
    await follows("DROP EXTENSION IF EXISTS nothing; DROP SERVER nats_main CASCADE", notConfigured);
  });

  it("is not followed before COMMIT, and not at all after ROLLBACK", async () => {
    await using second = { client: await gateway.connect(), [Symbol.asyncDispose]: () => second.client.end() };
    await follows(createServer(testNatsUrl()), main());
    await second.client.query(`BEGIN; ALTER SERVER nats_main OPTIONS (SET port '${other.port}')`);
    await follows("SELECT litmus_pgnats_reload_conf()", main());
    await second.client.query("ROLLBACK");
    await follows("SELECT litmus_pgnats_reload_conf()", main());
  });

  it("is the one that was set last, by either way", async () => {
    const set = (natsUrl: string) => `SELECT hawser.set_nats_server('${JSON.stringify(placeOf(natsUrl))}')`;
    await follows(createServer(testNatsUrl()), main());
    await follows(set(other.url), other.port);
    await follows(`ALTER SERVER nats_main OPTIONS (ADD domain 'd')`, main());
    await follows(set(other.url), other.port);
    await follows("SELECT hawser.set_nats_server(NULL)", main());
    await follows(set(other.url), other.port);
    await follows("DROP SERVER nats_main", other.port);
    await follows("SELECT hawser.set_nats_server(NULL)", notConfigured);
  });

  it("is known to a call that comes right after its definition", async () => {
    const definition = JSON.stringify(placeOf(testNatsUrl()));
    for (let turn = 1; turn <= 3; turn++) {
      await follows("SELECT hawser.set_nats_server(NULL)", notConfigured);
      await gateway.client.query("SELECT hawser.set_nats_server($1)", [definition]);
      await gateway.client.query("SELECT nats_publish_text('right.after', 'x')");
    }
  });

  it("is followed if one change comes upon the other, while the one before is being read", async () => {
    for (let turn = 1; turn <= 12; turn++) {
      const set = (port: number) => `SELECT hawser.set_nats_server('{"host":"127.0.0.1","port":"${port}"}')`;
      for (let change = 0; change < turn % 4; change++)
        await gateway.client.query(set(change % 2 === 0 ? other.port : main()));
      const port = turn % 2 === 0 ? other.port : main();
      await follows(set(port), port);
    }
  });

  it("stays, and is complained of, if its options do not go together any more", async () => {
    await follows(createServer(testNatsUrl()), main());
    const role = (await gateway.client.query("SELECT current_user AS name")).rows[0].name;
    complaints.length = 0;
    // A password needs a username, which may be on the server: so only both together are wrong.
    await gateway.client.query(`CREATE USER MAPPING FOR "${role}" SERVER nats_main OPTIONS (password 'secret-of-it')`);
    await eventually("it is complained of", () => complaints.length > 0);
    expect(complaints[0]).toMatchObject({ code: "nats_not_configured" });
    expect(JSON.stringify(complaints)).not.toContain("secret-of-it");
    expect(await reached(gateway)).toMatchObject({ port: main() });
    const error = await gateway.errorOf("SELECT litmus_pgnats_reload_conf()");
    expect([error.code, error.message]).toEqual([notConfigured, expect.stringContaining("invalid")]);
    await follows(`DROP USER MAPPING FOR "${role}" SERVER nats_main`, main());
  });
});

it("the server that is defined is found by polling, too, where there are no event triggers", async () => {
  await using gateway = await testGateway({ serverOptions: false });
  const { rows } = await gateway.client.query("SELECT evtname FROM pg_event_trigger WHERE evtname LIKE '%hawser%'");
  expect(rows.length).toBeGreaterThan(0);
  for (const { evtname } of rows) await gateway.client.query(`DROP EVENT TRIGGER "${evtname}"`);
  await gateway.client.query(createServer(testNatsUrl()));
  await eventually("the functions reach it", async () => typeof (await reached(gateway)) === "object");
});

describe("a standstill of NATS", () => {
  it("is no reason not to start; the functions work when it is up", async () => {
    const late = await startNatsServer();
    try {
      await late.stop();
      await using gateway = await testGateway({ serverOptions: false, tuning: { natsWaitMs: 0 } });
      await defineServer(gateway.client, late.url);
      await eventually("the functions say so", async () => (await reached(gateway)) === "08003");
      await late.restart();
      await eventually("the functions work", async () => typeof (await reached(gateway)) === "object");
    } finally {
      await late[Symbol.asyncDispose]();
    }
  });
});

describe("the login of serve", () => {
  it("needs to be in hawser_bridge and nowhere else; its user mapping has the secrets, and wins", async () => {
    await using own = await testGateway({ serverOptions: false });
    await own.serve.stop();
    const login = await bridgeLogin(own.database.url);
    try {
      await using serve = await startServer({
        databaseUrl: login.url,
        listen: "127.0.0.1:0",
        tuning: { natsWaitMs: 100 },
      });
      expect(serve.address).toMatch(/^127\.0\.0\.1:\d+$/);
      const mapping = (action: string) => `${action} USER MAPPING FOR ${login.name} SERVER nats_main`;
      await follows(createServer(guarded.url, { token: "wrong" }), unauthorized, own);
      await own.client.query(`${mapping("CREATE")} OPTIONS (token 'right')`);
      // Postgres shows it to nobody else, and to its own role only with this right.
      const grant = `GRANT USAGE ON FOREIGN SERVER nats_main TO ${login.name}`;
      const error = await own.errorOf("SELECT litmus_pgnats_reload_conf()");
      expect([error.code, error.hint]).toEqual([notConfigured, `${grant}, then reload.`]);
      await own.client.query(grant);
      await follows("SELECT litmus_pgnats_reload_conf()", guarded.port, own);
      await follows(`${mapping("ALTER")} OPTIONS (SET token 'false')`, unauthorized, own);
      await follows(`${mapping("ALTER")} OPTIONS (SET token 'right')`, guarded.port, own);
      await follows(mapping("DROP"), unauthorized, own);
      await follows(`ALTER SERVER nats_main OPTIONS (SET token 'right')`, guarded.port, own);
      // Those of others count for nothing.
      const before = await connectionOf(own);
      await own.client.query("CREATE USER MAPPING FOR PUBLIC SERVER nats_main OPTIONS (token 'wrong')");
      await own.client.query("SELECT litmus_pgnats_reload_conf()");
      expect(await connectionOf(own)).toBe(before);
      await own.client.query("DROP SERVER nats_main CASCADE");
    } finally {
      await login.drop();
    }
  });
});
