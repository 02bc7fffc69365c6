import { get, type IncomingMessage } from "node:http";
import { json } from "node:stream/consumers";
import { covers } from "../../../src/nats/bridge/subjects.js";
import type { TestNatsServer } from "../../support/nats-server.js";

/**
 * Number of connections of a server that are subscribed to all of these subjects, or to subjects that cover them, as it says itself
 * at its monitoring address.
 */
export async function subscribers({ monitorUrl }: TestNatsServer, ...subjects: readonly string[]): Promise<number> {
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    // Over a new connection each time: one that was kept may be to a server that was killed meanwhile.
    get(`${monitorUrl}/connz?subs=1`, { agent: false }, resolve).on("error", reject);
  });
  const { connections } = (await json(answer)) as { connections: { subscriptions_list?: string[] }[] };
  return connections.filter(({ subscriptions_list = [] }) => {
    return subjects.every((subject) => subscriptions_list.some((one) => covers(one, subject)));
  }).length;
}
