/**
 * Subscriptions as reported by a nats-server on its monitoring port.
 */
import { get, type IncomingMessage } from "node:http";
import { json } from "node:stream/consumers";
import { covers } from "../../../src/bridge/subjects.js";
import { ownPort } from "../../support/own-port.js";

export interface NatsMonitor {
  /** Server configuration that opens the monitoring port. */
  readonly config: string;
  /** Number of connections that are subscribed to all of these subjects, or to subjects that cover them. */
  subscribers(...subjects: readonly string[]): Promise<number>;
}

/** Creates a monitor of a server that is started with `config`. */
export async function natsMonitor(): Promise<NatsMonitor> {
  const address = { host: "127.0.0.1", port: await ownPort() };
  return {
    config: `http: "${address.host}:${address.port}"`,
    async subscribers(...subjects) {
      const answer = await new Promise<IncomingMessage>((resolve, reject) => {
        // Over a new connection each time: one that was kept may be to a server that was killed meanwhile.
        get({ ...address, path: "/connz?subs=1", agent: false }, resolve).on("error", reject);
      });
      const { connections } = (await json(answer)) as { connections: { subscriptions_list?: string[] }[] };
      return connections.filter(({ subscriptions_list = [] }) => {
        return subjects.every((subject) => subscriptions_list.some((one) => covers(one, subject)));
      }).length;
    },
  };
}
