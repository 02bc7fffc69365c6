import { expect, it } from "vitest";
import { peerWorld } from "../peer/support/world.js";
import { hawser } from "./support/hawser.js";

it("hawser send --lines sends more than the queue for a listener holds, without one being refused", async () => {
  await using world = await peerWorld({ nats: false });
  const orders = await world.started("orders-1");
  const lines = Array.from({ length: 12_000 }, (_, index) => `message ${index}`);
  const input = `${lines.join("\n")}\n`;
  const send = () => hawser(["send", "orders", "--lines"], { databaseUrl: world.url, input });
  const { status, stdout, stderr } = await send();
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout).toMatch(/^12000 messages: /);
  await orders.received.length(lines.length);
  expect(orders.texts).toEqual(lines);
  await orders.stop();
  const again = await send();
  expect(again).toMatchObject({ status: 0, stdout: "12000 messages: 12000 stored\n" });
});
