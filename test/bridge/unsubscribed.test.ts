/** What waits in the queue for a function ends with its subscription. */
import { it } from "vitest";
import { bridgeWorld } from "./support/bridge-world.js";

it("messages of the queue are deleted whose function is not subscribed any more, also while they are being taken", async () => {
  await using world = await bridgeWorld({
    sql: "CREATE FUNCTION f(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'",
  });
  const subject = `${world.prefix}.gone`;
  await world.subscribe(`${world.prefix}.there`, "f(bytea)");
  for (let times = 0; times < 3; times += 1) {
    await world.subscribe(subject, "f(bytea)");
    await world.client.query(
      `INSERT INTO hawser_data.dead_letters (origin, source, topic, payload, error_code, error_message, attempts, handler_id)
       SELECT 'subscription', 'f', h.subject, 'x', 'P0001', 'no', 1, h.id
         FROM hawser_bridge_data.nats_handlers AS h, generate_series(1, 149) WHERE h.subject = $1`,
      [subject],
    );
    await world.client.query("BEGIN");
    await world.client.query(
      "SELECT FROM hawser.retry_dead_letters(ARRAY(SELECT id FROM hawser_data.dead_letters ORDER BY id))",
    );
    await world.client.query("SELECT nats_unsubscribe($1, 'f')", [subject]);
    await world.client.query("COMMIT");
    await world.counts(0, "SELECT count(*) FROM hawser_data.queue");
  }
});
