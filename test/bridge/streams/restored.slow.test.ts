/**
 * A stream that was restored to an older state: its next messages have the numbers of those that it has lost.
 */
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { expect, it } from "vitest";
import { eventually } from "../../support/eventually.js";
import { startNatsServer } from "../../support/nats-server.js";
import { bridgeWorld } from "../support/bridge-world.js";

it("a new message that fails is a dead letter also where a lost one with its number is one", async () => {
  await using server = await startNatsServer({ jetStream: true });
  await using world = await bridgeWorld({
    natsUrl: server.url,
    sql: `CREATE FUNCTION refuse(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
          BEGIN IF payload <> 'good' THEN RAISE 'not this one'; END IF; END $$`,
  });
  const publish = async (text: string): Promise<void> => {
    const nats = await connect({ servers: server.url });
    await jetstream(nats).publish("s.a", text);
    await nats.close();
  };
  const status = async () =>
    (await world.rows<{ done_to: string; paused: boolean }>("SELECT done_to, paused FROM hawser.stream_status"))[0]!;
  const dead = async () =>
    (
      await world.rows<{ text: string }>(
        "SELECT convert_from(payload, 'UTF8') AS text FROM hawser_data.dead_letters ORDER BY id",
      )
    ).map(({ text }) => text);

  const nats = await connect({ servers: server.url });
  await (await jetstreamManager(nats)).streams.add({ name: "s", subjects: ["s.>"] });
  await nats.close();
  await publish("good");
  await server.stop();
  server.copyStore();
  await server.restart();
  await publish("bad");
  await world.client.query("SELECT nats_subscribe_stream('s', 'refuse', 's')");
  await eventually("it is done", async () => (await status()).done_to === "2");
  await server.stop();
  server.setStoreBack();
  await server.restart();
  await eventually("the subscription waits for a position", async () => (await status()).paused);
  await publish("another");
  await world.client.query("SELECT nats_seek_stream('s', '2')");
  await eventually("it is done", async () => (await status()).done_to === "2");
  expect(await dead()).toEqual(["bad", "another"]);
});
