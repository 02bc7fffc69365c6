import { afterAll, beforeAll, expect, it } from "vitest";
import { silentLogger } from "../../src/foundation/runtime/index.js";
import { PostgresServer } from "../../src/nats/gateway/protocol/index.js";
import { type TestGateway, testGateway } from "../support/gateway.js";

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await testGateway();
  await gateway.client.query("CREATE EXTENSION postgres_fdw");
});
afterAll(() => gateway?.[Symbol.asyncDispose]());

const conninfo = () => gateway.value<string>("SELECT hawser.gateway_conninfo()");

it("begins with what nobody can foretell: dblink takes its first 63 bytes for the name of a foreign server", async () => {
  const password = await gateway.value<string>("SELECT password FROM hawser_bridge_data.gateway_secret");
  expect(password.length).toBeGreaterThanOrEqual(32);
  expect((await conninfo()).slice(0, 63)).toMatch(new RegExp(`^password='${password.slice(0, 32)}`));
});

it("does not lead to a foreign server of somebody else's that is named like the rest of it", async () => {
  const asked: string[] = [];
  const rogue = await PostgresServer.listen({
    host: "127.0.0.1",
    port: 0,
    user: "x",
    database: "z",
    password: "y".repeat(32),
    maxSessions: 10,
    startupTimeoutMs: 5_000,
    maxStartupBytes: 10_000,
    maxRequestBytes: 1_000_000,
    logger: silentLogger,
    answer: (query) => {
      asked.push(Buffer.from(query).toString());
      return { kind: "row", value: "666" };
    },
  });
  try {
    const whole = await conninfo();
    const known = whole.slice(whole.indexOf("user="));
    for (const name of [known, whole.replace(/password='\w+'/, "password='"), "hawser"].map((one) =>
      one.slice(0, 63),
    )) {
      await gateway.client.query(
        `CREATE SERVER "${name}" FOREIGN DATA WRAPPER postgres_fdw
           OPTIONS (host '127.0.0.1', port '${rogue.address.port}', dbname 'z');
         GRANT USAGE ON FOREIGN SERVER "${name}" TO PUBLIC;
         CREATE USER MAPPING FOR PUBLIC SERVER "${name}" OPTIONS (user 'x', password '${"y".repeat(32)}')`,
      );
    }
    const other = await gateway.connect();
    try {
      await other.query("SELECT nats_publish_text('connection-string', 'a secret')");
    } finally {
      await other.end();
    }
    expect(asked).toEqual([]);
  } finally {
    await rogue.stop({ deadlineMs: 1_000 });
  }
});
