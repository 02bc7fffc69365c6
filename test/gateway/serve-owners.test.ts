/**
 * Whose an address is: gateways that share one, those that hang or are gone, and those with other TLS settings.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { type Logger, Serve, type ServeOptions } from "../../src/serve/index.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { eventually } from "../support/eventually.js";
import { patience, type TestGateway, testGateway } from "../support/gateway.js";
import { patientPollMs } from "./serving.js";

const { gatewayStaleMs } = gatewayConstants;

let gateway: TestGateway;

beforeAll(async () => {
  gateway = await testGateway();
});

afterAll(() => gateway?.[Symbol.asyncDispose]());

const another = (options: ServeOptions = {}) =>
  Serve.start({ databaseUrl: gateway.database.url, gatewayListen: "127.0.0.1:0", ...patience, ...options });

const portOf = ({ address }: Serve) => Number(address.split(":")[1]);

// Where Postgres is slow, gateways that have ended take their rows out some time later.
beforeEach(async () => {
  const entered = async () => (await rows()).filter(({ host }) => !host.endsWith(".invalid"));
  await eventually("those of the test before are gone", async () => (await entered()).length === 1);
});

async function rows(): Promise<{ host: string; port: number; owner: string }[]> {
  return (await gateway.client.query("SELECT host, port, owner FROM hawser.gateways ORDER BY started_at")).rows;
}

/** Where a session connects that begins now. */
async function conninfo(): Promise<string> {
  const { rows: found } = await gateway.client.query("SELECT hawser.gateway_conninfo() AS conninfo");
  return found[0].conninfo;
}

/** A call in a database session of its own. */
async function call(): Promise<void> {
  const session = await gateway.connect();
  try {
    await session.query("SELECT nats_publish_text('owners.a', 'x')");
  } finally {
    await session.end();
  }
}

const enter = (host: string, more: { owner?: string; sslmode?: string; agedMs?: number; startedAt?: string } = {}) =>
  gateway.client.query(
    `INSERT INTO hawser.gateways (host, port, owner, sslmode, started_at, seen_at)
     VALUES ($1, 1, $2, $3, now() + $4::interval, now() - $5 * interval '1 ms')`,
    [host, more.owner ?? "another", more.sslmode ?? "disable", more.startedAt ?? "1 day", more.agedMs ?? 0],
  );

describe("an address that several gateways have", () => {
  it("stays while one of them runs, and is tried once", async () => {
    await using first = await another({ advertise: "localhost:0" });
    const shared = { host: "localhost", port: portOf(first) };
    const second = await another({ advertise: `localhost:${shared.port}` });
    expect((await rows()).filter(({ host }) => host === "localhost")).toEqual([
      { ...shared, owner: expect.stringMatching(/./) },
      { ...shared, owner: expect.stringMatching(/./) },
    ]);
    expect(await conninfo()).toContain(`host='localhost,127.0.0.1' port='${shared.port},`);
    await second.stop();
    // Where Postgres is slow, it takes the row away some time later; what was not there for longer is forgotten anyway.
    const isAlone = async () => (await rows()).filter(({ host }) => host === "localhost").length === 1;
    await eventually("one of the two rows is gone", isAlone, gatewayStaleMs / 2);
    await call();
  });

  it("is that of the new one, where it is the one that a gateway listens at", async () => {
    const port = portOf(await stopped());
    await gateway.client.query("INSERT INTO hawser.gateways (host, port, owner) VALUES ('127.0.0.1', $1, 'dead')", [
      port,
    ]);
    await using next = await another({ gatewayListen: `127.0.0.1:${port}` });
    expect((await rows()).filter((row) => row.port === portOf(next)).map(({ owner }) => owner)).not.toContain("dead");
  });
});

async function stopped(): Promise<Serve> {
  const serve = await another();
  await serve.stop();
  return serve;
}

describe("a gateway that was not there for some time", () => {
  it("is tried after the others, also if it is younger; on a look of another one it is forgotten", async () => {
    await gateway.client.query("BEGIN");
    await enter("hung.invalid", { agedMs: gatewayStaleMs + 1000 });
    expect(await conninfo()).toContain("host='127.0.0.1,hung.invalid'");
    await gateway.client.query("COMMIT");
    await eventually(
      "it is forgotten",
      async () => !(await rows()).some(({ host }) => host === "hung.invalid"),
      patientPollMs,
    );
  });

  it("is not forgotten, whatever answers there, as long as it says that it is there; nor is what was entered by hand", async () => {
    await enter("alive.invalid");
    await enter("manual.invalid", { owner: "", agedMs: gatewayStaleMs + 1000 });
    await using _another = await another();
    const hosts = (await rows()).map(({ host }) => host);
    expect(hosts).toContain("alive.invalid");
    expect(hosts).toContain("manual.invalid");
    await gateway.client.query("DELETE FROM hawser.gateways WHERE host LIKE '%.invalid'");
  });
});

describe("gateways with different TLS settings", () => {
  it("do not spoil each other: those are tried that have the settings of the youngest", async () => {
    await enter("tls.invalid", { sslmode: "verify-full", startedAt: "-1 day" });
    expect(await conninfo()).toMatch(/host='127\.0\.0\.1' port='\d+' .*sslmode='disable'/);
    await call();
    await enter("younger.invalid", { sslmode: "require" });
    expect(await conninfo()).toContain("host='younger.invalid' port='1'");
    await gateway.client.query("DELETE FROM hawser.gateways WHERE host LIKE '%.invalid'");
  });

  it("warn of it when they start", async () => {
    const warnings: string[] = [];
    const silent = { debug: () => undefined, info: () => undefined, error: () => undefined };
    const logger: Logger = { ...silent, warn: (_, message) => void warnings.push(message) };
    const tls = new CertificateAuthority().issue(["127.0.0.1"]);
    await using _tls = await another({ tls, logger });
    expect(warnings.filter((message) => message.includes("TLS"))).toEqual([
      expect.stringContaining("other TLS settings"),
    ]);
    await call();
  });
});

describe("a gateway that is full", () => {
  it("is passed over", async () => {
    await using full = await another({ maxSessions: 1 });
    const [session, other] = [await gateway.connect(), await gateway.connect()];
    try {
      await session.query("SELECT nats_publish_text('owners.a', 'x')");
      expect(full.sessionCount).toBe(1);
      await call();
      // In a transaction of its own session: a gateway whose row is gone enters itself again.
      await other.query("BEGIN");
      await other.query("DELETE FROM hawser.gateways WHERE port <> $1", [portOf(full)]);
      await expect(other.query("SELECT nats_publish_text('owners.a', 'x')")).rejects.toMatchObject({
        code: "08001",
        detail: expect.stringContaining("--max-sessions"),
      });
    } finally {
      await session.end();
      await other.end();
    }
  });
});
