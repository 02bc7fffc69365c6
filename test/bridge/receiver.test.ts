/**
 * Reception over connections to NATS that are replaced.
 */

import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { Receiver } from "../../src/nats/bridge/receiver.js";
import { natsDrainMs } from "../../src/nats/connections/draining.js";
import { optionsFor, testConnector } from "../nats/support/connectors.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer, type TestNatsServer } from "../support/nats-server.js";
import { noTimersAbove } from "../support/timers.js";
import { keptLog } from "./role/log.js";

it("leaves the connection before, also if the one in its place is lost before the server has answered on it", async () => {
  await using server = await startNatsServer();
  const { connector } = testConnector();
  const { logger } = keptLog();
  let hears = 0;
  const receiver = new Receiver({
    connector,
    logger,
    events: {
      onMessage: () => undefined,
      onRefused: () => undefined,
      onIncomplete: () => undefined,
      onConnectionLost: () => undefined,
      onSameServerAgain: () => undefined,
      onComplete: () => {
        hears += 1;
      },
    },
  });
  receiver.subscribe(new Set(["a"]));
  connector.configure(optionsFor(server));
  const first = await connector.connected();
  await eventually("it hears", () => hears === 1);
  // Told after the receiver, which waits for an answer by then.
  const remove = connector.on("connected", (connection) => {
    remove();
    void connection.close();
  });
  noTimersAbove(natsDrainMs - 1);
  await connector.reconnect();
  await first.closed();
  await eventually("it receives again", () => hears === 2);
  await receiver.stop(1_000);
});

describe("a connection that the server ends", () => {
  /** Events of a receiver, until its connection was lost and there is another one. */
  async function told(server: TestNatsServer, cut: () => Promise<void>): Promise<readonly string[]> {
    const { connector } = testConnector();
    const all: string[] = [];
    const receiver = new Receiver({
      connector,
      logger: keptLog().logger,
      events: {
        onMessage: () => undefined,
        onRefused: () => undefined,
        onIncomplete: () => all.push("silent"),
        onConnectionLost: () => all.push("cut"),
        onSameServerAgain: () => all.push("same server"),
        onComplete: () => all.push("receiving"),
      },
    });
    receiver.subscribe(new Set(["a"]));
    connector.configure(optionsFor(server));
    await connector.connected();
    await eventually("it hears", () => receiver.isReceiving);
    await cut();
    await eventually("it receives again", () => all.filter((each) => each === "receiving").length === 2);
    await receiver.stop(1_000);
    return all;
  }

  it("because more came than was read, is told to be of the same server when that answers again", async () => {
    await using server = await startNatsServer({ config: "max_pending: 33554432, max_payload: 8388608" });
    const program = `
      import { connect } from "@nats-io/transport-node";
      const to = await connect({ servers: "${server.url}" });
      for (let n = 0; n < 40; n += 1) { to.publish("a", new Uint8Array(4_194_304)); await to.flush(); }
      await to.close();`;
    // Nothing is read meanwhile.
    const all = await told(server, async () => {
      execFileSync(process.execPath, ["--input-type=module", "--eval", program], { stdio: "ignore" });
    });
    expect(server.log()).toContain("Slow Consumer");
    expect(all.slice(0, 5)).toEqual(["receiving", "cut", "silent", "same server", "receiving"]);
  });

  it("because it was killed is not", async () => {
    await using server = await startNatsServer();
    const all = await told(server, async () => {
      await server.kill();
      await server.restart();
    });
    expect(all).toEqual(["receiving", "cut", "silent", "receiving"]);
  });
});
