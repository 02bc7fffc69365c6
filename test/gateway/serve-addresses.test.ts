/**
 * Where Postgres finds the gateways: those that come, go, and are killed.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Serve } from "../../src/serve/index.js";
import { ServeProcess } from "../faults/support/serve-process.js";
import { eventually } from "../support/eventually.js";
import { patience, type TestGateway, testGateway } from "../support/gateway.js";
import { patientPollMs } from "./serving.js";

let gateway: TestGateway;
/** What gateways of this process have logged. */
const told: string[] = [];
const note = (_: object, message: string) => void told.push(message);
const logger = { debug: note, info: note, warn: note, error: note };

beforeAll(async () => {
  gateway = await testGateway({ logger });
});

afterAll(() => gateway?.[Symbol.asyncDispose]());

/** What the database knows, the youngest first. */
async function addresses(): Promise<string[]> {
  const { rows } = await gateway.client.query("SELECT host, port FROM hawser.gateways ORDER BY started_at DESC");
  return rows.map(({ host, port }) => `${host}:${port}`);
}

// Where Postgres is slow, gateways that have ended take their addresses away some time later.
beforeEach(() => eventually("those of the test before are gone", async () => (await addresses()).length === 1));

const another = (options = {}) =>
  Serve.start({ databaseUrl: gateway.database.url, gatewayListen: "127.0.0.1:0", ...patience, logger, ...options });

/** The gateway that answers in a session that begins now: by which of them has one more session. */
async function call(): Promise<void> {
  await gateway.value("SELECT nats_publish_text('addresses.a', 'x')");
}

describe("the address of a gateway", () => {
  it("is in the database while it runs, with its real port", async () => {
    expect(await addresses()).toEqual([gateway.serve.address]);
    {
      await using second = await another();
      expect(second.gatewayUrl).toBe(
        `postgres://${new URL(second.gatewayUrl).username}@${second.address}/${gateway.database.name}`,
      );
      expect(await addresses()).toEqual([second.address, gateway.serve.address]);
    }
    await eventually("the address is gone", async () => (await addresses()).length === 1);
    expect(await addresses()).toEqual([gateway.serve.address]);
    // Unless that has come to nothing, nobody has to forget it.
    if (!told.some((message) => message.includes("could not be taken out of the database"))) {
      expect(told).not.toContain("a gateway that does not answer any more is forgotten");
    }
  });

  it("is the one that is advertised, where that is another one", async () => {
    await using second = await another({ advertise: "localhost:0" });
    expect(await addresses()).toEqual([second.address.replace("127.0.0.1", "localhost"), gateway.serve.address]);
    await using session = { client: await gateway.connect(), [Symbol.asyncDispose]: () => session.client.end() };
    await session.client.query("SELECT nats_publish_text('addresses.a', 'x')");
    expect(second.sessionCount).toBe(1);
  });

  it("is forgotten by the next one that starts, if its gateway was killed", async () => {
    const killed = await ServeProcess.start(gateway.database.url);
    await killed.crash();
    // Until then Postgres passes it over.
    await call();
    await using second = await another();
    expect(await addresses()).toEqual([second.address, gateway.serve.address]);
  });

  it("is forgotten within seconds by one that runs", async () => {
    const killed = await ServeProcess.start(gateway.database.url);
    expect(await addresses()).toEqual([`127.0.0.1:${killed.port}`, gateway.serve.address]);
    await killed.crash();
    await eventually("the address is forgotten", async () => (await addresses()).length === 1, patientPollMs);
    expect(await addresses()).toEqual([gateway.serve.address]);
  });

  it("is entered again by its gateway, if somebody else took it away", async () => {
    await gateway.client.query("DELETE FROM hawser.gateways");
    await eventually(
      "the address is there",
      async () => (await addresses())[0] === gateway.serve.address,
      patientPollMs,
    );
    await call();
  });

  it("is the same again for one that was killed and starts anew there", async () => {
    const process = await ServeProcess.start(gateway.database.url);
    try {
      await process.crash();
      await process.start();
      expect(await addresses()).toEqual([`127.0.0.1:${process.port}`, gateway.serve.address]);
      await call();
    } finally {
      await process.crash();
      await (await another()).stop();
    }
  });
});

describe("two gateways", () => {
  it("share the sessions: after one is killed the next call of its session goes to the other", async () => {
    const killed = await ServeProcess.start(gateway.database.url, ["--nats-wait-ms", `${patience.natsWaitMs}`]);
    const session = await gateway.connect();
    try {
      const info = async () => (await session.query("SELECT client_id FROM nats_get_server_info()")).rows[0].client_id;
      const before = gateway.serve.sessionCount;
      const first = await info();
      expect(gateway.serve.sessionCount).toBe(before);
      await killed.crash();
      expect(await info()).not.toBe(first);
      expect(gateway.serve.sessionCount).toBe(before + 1);
    } finally {
      await session.end();
      await killed.crash();
      await (await another()).stop();
    }
  });

  it("each follow the definition, and reload for themselves", async () => {
    await using second = await another();
    const session = await gateway.connect();
    try {
      await session.query("SELECT litmus_pgnats_reload_conf_force()");
      expect(second.sessionCount).toBe(1);
      await session.query("SELECT nats_publish_text('addresses.a', 'x')");
      await call();
    } finally {
      await session.end();
    }
  });
});
