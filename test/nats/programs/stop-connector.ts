/**
 * Stops connectors in every state and ends by itself if nothing is left of them.
 *
 *     stop-connector.ts <port of a server> <port of one that does not answer> <port of one that closes at once>
 */
import { checkNatsServerOptions, NatsConnector } from "../../../src/nats/connections/index.js";

const ignore = (): void => undefined;
const logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };

function linkTo(port: number): NatsConnector {
  const connector = new NatsConnector({ name: "stop-connector", secretsDirectories: [], logger });
  const checked = checkNatsServerOptions({ host: "127.0.0.1", port });
  if (!checked.ok) throw new Error(checked.violation.message);
  connector.configure(checked.options);
  return connector;
}

const [server, silent, dead] = process.argv.slice(2).map(Number) as [number, number, number];
const connectors = [server, silent, dead].map(linkTo);
await connectors[0]!.ready();
await connectors[2]!.ready().catch(ignore);
connectors.push(new NatsConnector({ name: "stop-connector", secretsDirectories: [], logger }));
await Promise.all(connectors.map((connector) => connector.stop()));
console.log(`stopped ${connectors.length}`);
