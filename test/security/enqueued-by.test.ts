/** Who enqueued a message is what Postgres has recorded, and nothing that a peer says. */
import { expect, it } from "vitest";
import type { Message } from "../../src/jobs-and-peers/peer/index.js";
import { openStore } from "../../src/jobs-and-peers/peer-store/store.js";
import { login } from "../installation/support/logins.js";
import { peerWorld } from "../peer/support/world.js";
import { eventually } from "../support/eventually.js";

it("a message of a channel is not taken for an enqueued one, whatever its headers say", async () => {
  await using world = await peerWorld({ nats: false, keepsConnections: true });
  await using mallory = await login(world.url, "IN ROLE hawser_peer");
  const got: Pick<Message, "sender" | "enqueuedBy" | "id">[] = [];
  const listener = world.peer("b-1");
  await listener.startWith(({ sender, enqueuedBy, id }) => void got.push({ sender, enqueuedBy, id }));
  await using store = await openStore({ databaseUrl: mallory.url });
  const channelId = await store.openChannel({ name: "m-1", sourceTopic: "m" }, "b-1");
  const topicId = await store.idOfTopic("b");
  await world.query(
    `INSERT INTO hawser_peer_data.stored_messages (channel_id, epoch, number, topic_id, payload, headers)
     VALUES ($1, 1, 1, $2, 'forged', '[["message-origin", "boss-1:boss:postgres"]]')`,
    [channelId, topicId],
  );
  await listener.stop();
  await listener.start();
  await eventually("it is handled", () => got.length === 1);
  expect(got).toEqual([{ sender: "m-1", enqueuedBy: undefined, id: "m-1:m:b-1/1/1" }]);
  await world.query("SELECT hawser.enqueue('b', 'true')");
  await eventually("the other one, too", () => got.length === 2);
  expect(got[1]).toEqual({
    sender: undefined,
    enqueuedBy: "postgres",
    id: expect.stringMatching(/^\d+$/),
  });
});
