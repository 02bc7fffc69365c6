/**
 * What is received over connections to NATS that are replaced.
 */
import { performance } from "node:perf_hooks";
import { expect, it } from "vitest";
import { gatewayConstants } from "../../generated/ts/settings/nats.js";
import { Receiver } from "../../src/bridge/receiver.js";
import { optionsFor, testLink } from "../nats/support/links.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
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
