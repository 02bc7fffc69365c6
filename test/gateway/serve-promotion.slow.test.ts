/**
 * A gateway whose server is a standby, until it is promoted.
 */

import { expect, it } from "vitest";
import { serve as startServer } from "../../src/nats/serve/index.js";
import { optionsPollMs } from "../../src/operating/installation/foreign-data.js";
import { install } from "../../src/operating/installation/index.js";
import { testNatsUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { onServer, rowsOf } from "../support/on-server.js";
import { startPrimaryAndStandby } from "../support/standby.js";
import { noTimersAbove } from "../support/timers.js";
import { placeOf } from "./serving.js";

it("enters itself after the promotion, and hears of changes at once", async () => {
  await using servers = await startPrimaryAndStandby();
  await install({ databaseUrl: servers.primary.url });
  const set = (natsUrl: string) => `SELECT hawser.set_nats_server('${JSON.stringify(placeOf(natsUrl))}')`;
  await onServer(servers.primary.url, set(testNatsUrl()));
  await servers.caughtUp();
  await using serve = await startServer({ databaseUrl: servers.standby.url, listen: "127.0.0.1:0" });
  const entered = () =>
    rowsOf(servers.standby.url, "SELECT host || ':' || port AS address FROM hawser_bridge_data.gateways");
  expect(await entered()).toEqual([]);
  await servers.primary.kill("SIGKILL");
  await servers.promote();
  await eventually("it is entered", async () => (await entered()).length > 0);
  expect(await entered()).toEqual([{ address: serve.address }]);
  await using other = await startNatsServer();
  // No poll comes.
  noTimersAbove(optionsPollMs - 1);
  for (const natsUrl of [other.url, testNatsUrl(), other.url]) {
    await onServer(servers.standby.url, set(natsUrl));
    await eventually("the functions reach the server that was set", async () => {
      const [info] = await rowsOf(servers.standby.url, "SELECT port FROM nats_get_server_info()").catch(() => []);
      return `${info?.["port"]}` === placeOf(natsUrl).port;
    });
  }
});
