import { jetstreamManager } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import {
  accountsOf,
  configOf,
  emptyAccount,
  type NatsAccount,
  natsRules,
} from "../../src/development/testing/nats-accounts.js";
import { Relay } from "../../src/development/testing/relay.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";

const accounts = accountsOf("0123456789ab");
let server: TestNatsServer;

beforeAll(async () => {
  server = await startNatsServer({ config: configOf(accounts), jetStream: true });
});
afterAll(() => server.stop());

/** A client that brings no credentials, behind the relay of an account. */
async function clientOf(account: NatsAccount): Promise<NatsConnection> {
  const relay = await Relay.start(server, natsRules(account));
  const nats = await connect({ servers: `127.0.0.1:${relay.port}` });
  onTestFinished(async () => {
    await nats.close();
    await relay.close();
  });
  return nats;
}

const streamsOf = async (nats: NatsConnection): Promise<string[]> => {
  const names: string[] = [];
  for await (const { config } of (await jetstreamManager(nats)).streams.list()) names.push(config.name);
  return names;
};

it("refuses whoever has no account", async () => {
  await expect(connect({ servers: server.url })).rejects.toThrow(/authorization/i);
});

it("keeps streams apart, and empties one account without the others", async () => {
  const [one, other] = await Promise.all([clientOf(accounts[0]!), clientOf(accounts.at(-1)!)]);
  for (const nats of [one, other]) {
    const { streams } = await jetstreamManager(nats);
    await streams.add({ name: "ORDERS", subjects: ["orders.*"] });
  }
  await (await jetstreamManager(one)).streams.add({ name: "MORE", subjects: ["more.*"] });
  expect(await streamsOf(other)).toEqual(["ORDERS"]);
  await emptyAccount(server.url, accounts[0]!);
  expect(await streamsOf(one)).toEqual([]);
  expect(await streamsOf(other)).toEqual(["ORDERS"]);
});
