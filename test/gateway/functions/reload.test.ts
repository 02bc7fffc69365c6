/**
 * The definition of the NATS server is followed, with and without the functions that reload it.
 */
import { connect } from "@nats-io/transport-node";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../../support/eventually.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../../support/nats-server.js";

let gateway: TestGateway;
let one: TestNatsServer;
let other: TestNatsServer;
beforeEach(async () => {
  [one, other] = await Promise.all([startNatsServer(), startNatsServer()]);
  gateway = await testGateway({ serverOptions: false });
});
afterEach(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await one?.[Symbol.asyncDispose]();
  await other?.[Symbol.asyncDispose]();
});

const create = (server: TestNatsServer, wrapper = "litmus_pgnats_fdw") =>
  gateway.client.query(
    `CREATE SERVER nats_fdw_server FOREIGN DATA WRAPPER ${wrapper} OPTIONS (host '127.0.0.1', port '${server.port}')`,
  );
const alter = (server: TestNatsServer) =>
  gateway.client.query(`ALTER SERVER nats_fdw_server OPTIONS (SET port '${server.port}')`);

/** The identity that the functions see, and that of a server as another client sees it. */
const seen = () => gateway.value("SELECT server_id FROM nats_get_server_info()");
async function identityOf(server: TestNatsServer): Promise<string> {
  const connection = await connect({ servers: server.url });
  const { server_id } = connection.info!;
  await connection.close();
  return server_id;
}

describe.each(["litmus_pgnats_", "pgnats_"])("%sreload_conf", (prefix) => {
  it("takes over another server, and leaves the connection where nothing has changed", async () => {
    await create(one);
    await gateway.value(`SELECT ${prefix}reload_conf()`);
    expect(await seen()).toBe(await identityOf(one));
    const client = await gateway.value("SELECT client_id FROM nats_get_server_info()");
    await gateway.value(`SELECT ${prefix}reload_conf()`);
    expect(await gateway.value("SELECT client_id FROM nats_get_server_info()")).toBe(client);
    await gateway.value(`SELECT ${prefix}reload_conf_force()`);
    expect(await gateway.value("SELECT client_id FROM nats_get_server_info()")).not.toBe(client);
    await alter(other);
    await gateway.value(`SELECT ${prefix}reload_conf()`);
    expect(await seen()).toBe(await identityOf(other));
  });

  it("needs a transaction of its own after a change, and says so", async () => {
    await create(one);
    for (const name of [`${prefix}reload_conf`, `${prefix}reload_conf_force`]) {
      await gateway.client.query("BEGIN");
      await alter(other);
      expect(await gateway.errorOf(`SELECT ${name}()`)).toMatchObject({
        code: "25001",
        hint: expect.stringContaining("COMMIT"),
      });
      await gateway.client.query("ROLLBACK");
      await gateway.client.query("BEGIN");
      await gateway.value(`SELECT ${name}()`);
      await gateway.client.query("COMMIT");
      expect(await seen()).toBe(await identityOf(one));
    }
  });

  it("raises why there is no connection", async () => {
    await create(one);
    await gateway.value(`SELECT ${prefix}reload_conf()`);
    await other.stop();
    await alter(other);
    for (const name of [`${prefix}reload_conf`, `${prefix}reload_conf_force`]) {
      expect(await gateway.errorOf(`SELECT ${name}()`)).toMatchObject({
        code: "08003",
        message: expect.stringContaining(`${other.port}`),
        detail: expect.stringContaining("Nothing listens there"),
      });
    }
  });
});

describe("without reloading", () => {
  it.each(["litmus_pgnats_fdw", "pgnats_fdw"])(
    "a server of %s is followed when it is made, altered and dropped",
    async (wrapper) => {
      await create(one, wrapper);
      const identities = [await identityOf(one), await identityOf(other)];
      const follows = (what: string, identity: string | undefined) =>
        eventually(what, () =>
          seen().then(
            (found) => found === identity,
            (error) => identity === undefined && error.code === "55000",
          ),
        );
      await follows("the server that was made is used", identities[0]);
      await alter(other);
      await follows("the server that was altered is used", identities[1]);
      await gateway.client.query("DROP SERVER nats_fdw_server");
      await follows("the server that was dropped is not used", undefined);
    },
  );
});
