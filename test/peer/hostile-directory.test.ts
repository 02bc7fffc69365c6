/** A directory with rows of listeners that are not there, which any role with `hawser_peer` can write. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Server } from "node:net";
import { afterEach, expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** Address where somebody accepts connections and says nothing. */
async function silentAddress(): Promise<string> {
  const server = createServer((socket) => void socket.on("error", () => undefined).unref()).listen(0, "127.0.0.1");
  servers.push(server);
  await once(server, "listening");
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

it("gives no message to them while another listener is connected", async () => {
  const b = await world.started("b-1");
  const a = await world.started("a-1");
  await a.send("b", "first");
  const addresses = await Promise.all(Array.from({ length: 5 }, silentAddress));
  const names = ["constructor", "__proto__", "toString", "m", "b"];
  await world.query(
    `INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name)
     SELECT 'b', * FROM unnest('{${addresses}}'::text[], '{${names}}'::text[])`,
  );
  await eventually("they are known", async () => (await a.listenersOf("b", { refresh: true })).length === 6);
  const receipts = await Promise.all(Array.from({ length: 20 }, (_, n) => a.send("b", `${n}`)));
  expect(receipts.map(({ peer, outcome }) => `${peer} ${outcome}`)).toEqual(Array(20).fill("b-1 delivered"));
  expect(b.texts).toHaveLength(21);
});
