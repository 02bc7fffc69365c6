/**
 * Stops links in every state and ends by itself if nothing is left of them.
 *
 *     stop-link.ts <port of a server> <port of one that does not answer> <port of one that closes at once>
 */
import { checkNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import { NatsLink } from "../../../src/nats/index.js";

const ignore = (): void => undefined;
const logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };

function linkTo(port: number): NatsLink {
  const link = new NatsLink({ name: "stop-link", secretsDirectories: [], logger });
  const checked = checkNatsServerOptions({ host: "127.0.0.1", port });
  if (!checked.ok) throw new Error(checked.violation.message);
  link.configure(checked.options);
  return link;
}

const [server, silent, dead] = process.argv.slice(2).map(Number) as [number, number, number];
const links = [server, silent, dead].map(linkTo);
await links[0]!.ready();
await links[2]!.ready().catch(ignore);
links.push(new NatsLink({ name: "stop-link", secretsDirectories: [], logger }));
await Promise.all(links.map((link) => link.stop()));
console.log(`stopped ${links.length}`);
