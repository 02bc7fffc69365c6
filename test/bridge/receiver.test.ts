/**
 * What is received over connections to NATS that are replaced.
 */
import { performance } from "node:perf_hooks";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { describe, expect, it } from "vitest";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { Receiver } from "../../src/bridge/receiver.js";
import { optionsFor, testLink } from "../nats/support/links.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { keptLog } from "./role/log.js";

it("leaves the connection before, also where the one in its place is lost before the server has answered on it", async () => {
  await using server = await startNatsServer();
  const { link } = testLink();
  const { logger } = keptLog();
  let hears = 0;
  const receiver = new Receiver({
    link,
    logger,
    onMessage: () => undefined,
    onRefused: () => undefined,
    onDeaf: () => undefined,
    onCut: () => undefined,
    onSameServer: () => undefined,
    onHearing: () => {
      hears += 1;
    },
  });
  receiver.subscribe(new Set(["a"]));
  link.configure(optionsFor(server));
  const first = await link.connected();
  await eventually("it hears", () => hears === 1);
  // Told after the receiver, which waits for an answer by then.
  const remove = link.on("connected", (connection) => {
    remove();
    void connection.close();
  });
  const start = performance.now();
  await link.reconnect();
  await first.closed();
  expect(performance.now() - start).toBeLessThan(gatewayConstants.natsFarewellMs - 1_000);
  await eventually("it hears again", () => hears === 2);
  await receiver.stop(1_000);
});

describe("a connection that the server ends", () => {
  /** Receives what is published, each message taking so long, until the connection is lost and there is another one. */
  async function cutOf(server: TestNatsServer, takesMs: number, publish: (to: NatsConnection) => Promise<void>) {
    const { link } = testLink();
    const told: string[] = [];
    const receiver = new Receiver({
      link,
      logger: keptLog().logger,
      onMessage() {
        const until = performance.now() + takesMs;
        while (performance.now() < until);
      },
      onRefused: () => undefined,
      onDeaf: () => told.push("deaf"),
      onCut: () => told.push("cut"),
      onSameServer: () => told.push("same server"),
      onHearing: () => told.push("hearing"),
    });
    receiver.subscribe(new Set(["a"]));
    link.configure(optionsFor(server));
    await link.connected();
    await eventually("it hears", () => receiver.isHearing);
    const publisher = await connect({ servers: server.url, reconnect: false });
    await publish(publisher);
    await eventually("it hears again", () => told.filter((each) => each === "hearing").length === 2);
    await publisher.close();
    await receiver.stop(1_000);
    return told;
  }

  it("because more came than was read, is told to be of the same server when that answers again", async () => {
    await using server = await startNatsServer({ config: "max_pending: 33554432, max_payload: 8388608" });
    const payload = Buffer.alloc(4_194_304);
    const told = await cutOf(server, 100, async (to) => {
      for (let n = 0; n < 60; n += 1) {
        to.publish("a", payload);
        await new Promise(setImmediate);
      }
    });
    expect(server.log()).toContain("Slow Consumer");
    expect(told.slice(0, 5)).toEqual(["hearing", "cut", "deaf", "same server", "hearing"]);
  });

  it("because it was killed is not", async () => {
    await using server = await startNatsServer();
    const told = await cutOf(server, 0, async (to) => {
      for (let n = 0; n < 100; n += 1) to.publish("a", Buffer.alloc(100_000));
      await to.flush();
      await server.kill();
      await server.restart();
    });
    expect(told).toEqual(["hearing", "cut", "deaf", "hearing"]);
  });
});
