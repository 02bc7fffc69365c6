/** A message at which the NATS server ends the connection, from end to end. The rules are tested in `relay.test.ts`. */
import { jetstreamManager } from "@nats-io/jetstream";
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { testGateway } from "../support/gateway.js";
import { startNatsServer } from "../support/nats-server.js";

it("a message that the server's max_control_line refuses becomes a dead letter, and the others arrive before", async () => {
  await using server = await startNatsServer({ jetStream: true, config: "max_control_line: 1024" });
  await using gateway = await testGateway({ natsUrl: server.url });
  const manager = await jetstreamManager(gateway.nats);
  await manager.streams.add({ name: "ORDERS", subjects: ["orders.>"] });
  const core: string[] = [];
  gateway.nats.subscribe("news", { callback: (_, message) => void core.push(message.string()) });
  await gateway.nats.flush();
  const { client } = gateway;
  const long = `orders.${"x".repeat(1_017)}`;
  await client.query("BEGIN");
  for (let nth = 0; nth < 35; nth++) {
    if (nth === 17) await client.query("SELECT hawser.enqueue($1, 'too long', stream => true)", [long]);
    const [subject, toStream] = nth % 2 === 0 ? ["orders.new", true] : ["news", false];
    await client.query("SELECT hawser.enqueue($1, $2, stream => $3)", [subject, String(nth), toStream]);
  }
  await client.query("COMMIT");
  const dead = async () =>
    (await client.query("SELECT topic, error_code, error_message, attempts FROM hawser_data.dead_letters")).rows;
  await eventually("all others have arrived", async () => {
    return (await manager.streams.info("ORDERS")).state.messages === 18 && new Set(core).size === 17;
  });
  expect(await dead()).toEqual([]);
  await eventually("it is a dead letter", async () => (await dead()).length > 0);
  expect(await dead()).toEqual([
    {
      topic: long,
      error_code: "nats_failed",
      error_message: expect.stringMatching(/ended 5 times while this message alone was published: .*control line/i),
      attempts: 5,
    },
  ]);
  expect((await manager.streams.info("ORDERS")).state.messages).toBe(18);
  await client.query("SELECT hawser.enqueue('orders.new', 'goes on', stream => true)");
  await eventually("it goes on", async () => (await manager.streams.info("ORDERS")).state.messages === 19);
});
