/**
 * Role-change notices over a connector of a test's own.
 */
import { onTestFinished } from "vitest";
import { RoleNotices, type RoleNoticesOptions } from "../../../src/nats/bridge/role/index.js";
import { type optionsFor, testConnector } from "../../nats/support/connectors.js";
import { keptLog } from "./log.js";

/** Listen address of Postgres. */
export const address = { addresses: ["127.0.0.1", "*"], port: 5432 };

export const text = (status: string, name: string | null = null) =>
  `{"status":"${status}","listen_adresses":["127.0.0.1","*"],"listen_addresses":["127.0.0.1","*"],"port":5432,` +
  `"name":${JSON.stringify(name)}}`;

/** Notices over a connector of their own. */
export function testNotices(options: Pick<RoleNoticesOptions, "patroniTimeoutMs"> = {}) {
  const { connector } = testConnector();
  const log = keptLog();
  const notices = new RoleNotices({ connector, logger: log.logger, ...options });
  onTestFinished(() => notices.stop());
  const configure = (options: ReturnType<typeof optionsFor>) => {
    connector.configure(options);
    notices.configure(options);
  };
  return { connector, notices, log, configure };
}
