/**
 * Addresses of gateways in Postgres: gateways start, stop, hang, share an address or have other TLS
 * settings.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { type HawserServer, type ServeOptions, serve } from "../../src/nats/serve/index.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { eventually } from "../support/eventually.js";
import { patience, type TestGateway, testGateway } from "../support/gateway.js";
import { slowIt } from "../support/slow-it.js";

const { gatewayStaleMs } = gatewayConstants;

let gateway: TestGateway;
/** Log lines of gateways of this process. */
const told: string[] = [];
const note = (_: object, message: string) => void told.push(message);
const logger = { debug: note, info: note, warn: note, error: note };

beforeAll(async () => {
  gateway = await testGateway({ logger });
});

afterAll(() => gateway?.[Symbol.asyncDispose]());

/** Rows in the database, newest first. */
async function rows(): Promise<{ host: string; port: number; owner: string }[]> {
  const sql = "SELECT host, port, owner FROM hawser_bridge_data.gateways ORDER BY started_at DESC";
  return (await gateway.client.query(sql)).rows;
}

const addresses = async () => (await rows()).map(({ host, port }) => `${host}:${port}`);

// Where Postgres is slow, gateways that have ended take their addresses away some time later.
beforeEach(() => eventually("those of the test before are gone", async () => (await rows()).length === 1));

const another = (options: ServeOptions = {}) =>
  serve({ databaseUrl: gateway.database.url, listen: "127.0.0.1:0", ...patience, logger, ...options });

const portOf = ({ address }: HawserServer) => Number(address.split(":")[1]);

/** Address that a new session connects to. */
const conninfo = () => gateway.value<string>("SELECT hawser.gateway_conninfo()");

const publish = "SELECT nats_publish_text('addresses.a', 'x')";

/** A call in a database session of its own. */
async function call(): Promise<void> {
  const session = await gateway.connect();
  try {
    await session.query(publish);
  } finally {
    await session.end();
  }
}

const enter = (host: string, more: { owner?: string; sslmode?: string; agedMs?: number; startedAt?: string } = {}) =>
  gateway.client.query(
    `INSERT INTO hawser_bridge_data.gateways (host, port, owner, sslmode, started_at, seen_at)
     VALUES ($1, 1, $2, $3, now() + $4::interval, now() - $5 * interval '1 ms')`,
    [host, more.owner ?? "another", more.sslmode ?? "disable", more.startedAt ?? "1 day", more.agedMs ?? 0],
  );
const takeOut = () => gateway.client.query("DELETE FROM hawser_bridge_data.gateways WHERE host LIKE '%.invalid'");

describe("the address of a gateway", () => {
  it("is in the database while it runs, with its real port", async () => {
    expect(await addresses()).toEqual([gateway.serve.address]);
    told.length = 0;
    {
      await using second = await another();
      expect(second.gatewayUrl).toBe(
        `postgres://${new URL(second.gatewayUrl).username}@${second.address}/${gateway.database.name}`,
      );
      expect(await addresses()).toEqual([second.address, gateway.serve.address]);
    }
    await eventually("the address is gone", async () => (await rows()).length === 1);
    expect(await addresses()).toEqual([gateway.serve.address]);
    // Unless that has come to nothing, nobody has to forget it.
    if (!told.some((message) => message.includes("cannot remove the gateway's address"))) {
      expect(told).not.toContain("removed the address of a gateway that no longer answers");
    }
  });

  it("is the one that is advertised, if that is another one", async () => {
    await using second = await another({ advertise: "localhost:0" });
    expect(await addresses()).toEqual([second.address.replace("127.0.0.1", "localhost"), gateway.serve.address]);
    const session = await gateway.connect();
    await session.query(publish);
    expect(second.sessionCount).toBe(1);
    await session.end();
  });

  it("stays while one of those runs that share it, and is tried once", async () => {
    await using first = await another({ advertise: "localhost:0" });
    const shared = { host: "localhost", port: portOf(first), owner: expect.stringMatching(/./) };
    const second = await another({ advertise: `localhost:${shared.port}` });
    const those = async () => (await rows()).filter(({ host }) => host === "localhost");
    expect(await those()).toEqual([shared, shared]);
    expect(await conninfo()).toContain(`host='localhost,127.0.0.1' port='${shared.port},`);
    await second.stop();
    // Where Postgres is slow, it takes the row away some time later; what was not there for longer is forgotten anyway.
    await eventually("one of the two rows is gone", async () => (await those()).length === 1, gatewayStaleMs / 2);
    await call();
  });

  it("is that of the new one, if it is the one that a gateway listens at", async () => {
    const before = await another();
    await before.stop();
    const insert = "INSERT INTO hawser_bridge_data.gateways (host, port, owner) VALUES ('127.0.0.1', $1, 'dead')";
    await gateway.client.query(insert, [portOf(before)]);
    await using next = await another({ listen: before.address });
    expect((await rows()).filter(({ port }) => port === portOf(next)).map(({ owner }) => owner)).not.toContain("dead");
  });
});

describe("a look of a gateway, every few seconds", () => {
  slowIt("enters its address again, and forgets those who refuse or were not there for some time", async () => {
    await gateway.client.query("BEGIN");
    await enter("hung.invalid", { agedMs: gatewayStaleMs + 1000 });
    // Younger, and tried after the others.
    expect(await conninfo()).toContain("host='127.0.0.1,hung.invalid'");
    await gateway.client.query("DELETE FROM hawser_bridge_data.gateways WHERE owner <> 'another'");
    // Nobody listens on port 1, and nobody is given it by chance.
    await enter("127.0.0.1");
    await gateway.client.query("COMMIT");
    const isAsBefore = async () => (await addresses()).join() === gateway.serve.address;
    await eventually("its own address is there, and no other", isAsBefore);
    await call();
  });

  it("keeps the rows of running gateways, whatever answers there, and rows that were inserted by hand", async () => {
    await enter("alive.invalid");
    await enter("manual.invalid", { owner: "", agedMs: gatewayStaleMs + 1000 });
    {
      // It looks when it starts.
      await using _another = await another();
      expect((await rows()).map(({ host }) => host)).toEqual(
        expect.arrayContaining(["alive.invalid", "manual.invalid"]),
      );
    }
    await takeOut();
  });
});

describe("two gateways", () => {
  it("each follow the definition, and reload for themselves", async () => {
    await using second = await another();
    const session = await gateway.connect();
    await session.query("SELECT litmus_pgnats_reload_conf_force()");
    expect(second.sessionCount).toBe(1);
    await session.query(publish);
    await gateway.client.query(publish);
    await session.end();
  });

  it("with different TLS settings do not spoil each other: those are tried that have the settings of the youngest", async () => {
    await enter("tls.invalid", { sslmode: "verify-full", startedAt: "-1 day" });
    expect(await conninfo()).toMatch(/host='127\.0\.0\.1' port='\d+' .*sslmode='disable'/);
    await call();
    await enter("younger.invalid", { sslmode: "require" });
    expect(await conninfo()).toContain("host='younger.invalid' port='1'");
    await takeOut();
  });

  it("with different TLS settings warn of it when they start", async () => {
    const warnings: string[] = [];
    const warn = (_: object, message: string) => void warnings.push(message);
    const tls = new CertificateAuthority().issue(["127.0.0.1"]);
    await using _tls = await another({ tls, logger: { ...logger, warn } });
    expect(warnings.filter((message) => message.includes("TLS"))).toEqual([
      expect.stringContaining("other TLS settings"),
    ]);
    await call();
  });

  it("pass each other's sessions on, if one is full", async () => {
    await using full = await another({ tuning: { maxSessions: 1 } });
    const [session, other] = [await gateway.connect(), await gateway.connect()];
    try {
      await session.query(publish);
      expect(full.sessionCount).toBe(1);
      await call();
      // In a transaction of its own session: a gateway whose row is gone enters itself again.
      await other.query("BEGIN");
      await other.query("DELETE FROM hawser_bridge_data.gateways WHERE port <> $1", [portOf(full)]);
      await expect(other.query(publish)).rejects.toMatchObject({
        code: "08001",
        detail: expect.stringContaining("--tune maxSessions"),
      });
    } finally {
      await session.end();
      await other.end();
    }
  });
});
